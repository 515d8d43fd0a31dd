"""Which key a request names."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Final

import pytest
from aiohttp.test_utils import make_mocked_request

from homewire.auth.authenticator import Credential
from homewire.auth.tokens import mint

KEY: Final = mint(3)[0]
OTHER: Final = mint(3)[0]
WAYS: Final = {
    "Authorization": "Bearer {}",
    "X-Auth-Token": "{}",
    "Cookie": "a=b; homewire_session={}",
}


def credential(headers: Mapping[str, str], path: str = "/", *, websocket: bool = False) -> Credential:
    return Credential.of(make_mocked_request("GET", path, headers=headers), websocket=websocket)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_names_a_key(way: str) -> None:
    found = credential({way: WAYS[way].format(KEY)})
    assert found.token == KEY
    assert found.by_cookie is (way == "Cookie")
    assert found.user_id == ("" if way == "X-Auth-Token" else None)


HEADERS: Final = ("Authorization", "X-Auth-Token")


@pytest.mark.parametrize(("one", "another"), list(permutations(HEADERS, 2)))
def test_two_headers_must_name_the_same(one: str, another: str) -> None:
    same = credential({way: WAYS[way].format(KEY) for way in (one, another)})
    assert (same.token, same.by_cookie) == (KEY, False)
    assert credential({one: WAYS[one].format(KEY), another: WAYS[another].format(OTHER)}).reference is None
    # Nor does a key hide behind something that is none.
    for nothing in ("garbage", "v1.3.x"):
        found = credential({one: WAYS[one].format(KEY), another: WAYS[another].format(nothing)})
        assert found.reference is None


@pytest.mark.parametrize("way", HEADERS)
@pytest.mark.parametrize("cookie", [KEY, OTHER, "garbage"], ids=["same", "other", "garbage"])
def test_header_decides_and_no_cookie_beside_it(way: str, cookie: str) -> None:
    found = credential({way: WAYS[way].format(KEY), "Cookie": WAYS["Cookie"].format(cookie)})
    assert (found.token, found.by_cookie, found.cookies) == (KEY, False, [cookie])
    garbage = credential({way: WAYS[way].format("garbage"), "Cookie": WAYS["Cookie"].format(cookie)})
    assert garbage.reference is None


@pytest.mark.parametrize("way", HEADERS)
def test_empty_header_names_a_key_that_is_none(way: str) -> None:
    """Else a cookie would count for a client that meant something else."""
    assert credential({way: "", "Cookie": f"homewire_session={KEY}"}).reference is None


def test_auth_token_counts_on_websockets_without_authorization() -> None:
    path = f"/?authToken={KEY}"
    cookie = {"Cookie": f"homewire_session={OTHER}"}
    assert credential({}, path).reference is None
    assert credential({}, path, websocket=True).token == KEY
    assert credential({"Authorization": OTHER}, path, websocket=True).token == OTHER
    assert credential(cookie, path, websocket=True).token == KEY
    assert credential(cookie, path).token == OTHER


def test_key_stands_in_no_repr() -> None:
    assert KEY not in repr(credential({"Authorization": KEY}))
