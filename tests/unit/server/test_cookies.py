"""The cookie of a session, as it comes and as it is set."""

from __future__ import annotations

from typing import Final

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from homewire.server.browser import (
    DEAD_COOKIES,
    HOST_SESSION_COOKIE,
    SESSION_COOKIE,
    expire_cookie,
    expire_dead_cookies,
    session_cookies,
    set_cookie,
)
from homewire.server.clients import TrustedProxies
from homewire.settings import Settings

PROXIES = TrustedProxies.of(Settings(trusted_proxies="10.0.0.0/8"))
KEY = "v1.3." + "a-_" * 14 + "a"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], []),
        (["other=1"], []),
        ([f"homewire_session={KEY}"], [KEY]),
        ([f"a=b; homewire_session={KEY};c=d"], [KEY]),
        ([f'homewire_session="{KEY}"'], [KEY]),
        ([f"homewire_session={KEY}; homewire_session=other"], [KEY, "other"]),
        ([f"homewire_session={KEY}", "homewire_session=other"], [KEY, "other"]),
        (["homewire_session="], []),
        (["homewire_session"], []),
        ([f"Homewire_Session={KEY}"], []),
        ([f"xhomewire_session={KEY}"], []),
        ([f"a=homewire_session={KEY}"], []),
        (["; ;=;;homewire_session=x=y; "], ["x=y"]),
    ],
)
def test_all_cookies_of_the_name_are_found(headers: list[str], found: list[str]) -> None:
    given = CIMultiDict([("Cookie", header) for header in headers])
    assert session_cookies(make_mocked_request("GET", "/", headers=given)) == found


Written = dict[str, tuple[str, set[str]]]
PLAIN: Final = {"HttpOnly", "Path=/", "SameSite=Lax"}


def written(key: str | None, https: bool = False, **headers: str) -> Written:
    """The cookies that are set, by name, and their attributes."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request, response = make_mocked_request("POST", "/", headers=given), web.Response()
    request.protocol.peer = PROXIES.peer("10.0.0.1")  # type: ignore[attr-defined]
    if key is None:
        expire_cookie(request, response, https=https)
    else:
        set_cookie(request, response, key, https=https)
    assert response.headers["Cache-Control"] == "no-store"
    found = {}
    for name, morsel in response.cookies.items():
        cookie, *attributes = morsel.OutputString().split("; ")
        found[name] = cookie.removeprefix(f"{name}=").strip('"'), set(attributes)
    return found


def test_no_script_reads_it_and_no_other_site_sends_it() -> None:
    assert written(KEY) == {SESSION_COOKIE: (KEY, PLAIN)}


@pytest.mark.parametrize(
    ("proto", "secure"),
    [("https", True), ("HTTPS", True), ("http, https", True), ("http", False), ("x", False)],
)
def test_cookie_set_over_https_is_secure(proto: str, secure: bool) -> None:
    expected = {HOST_SESSION_COOKIE: (KEY, PLAIN | {"Secure"})} if secure else {SESSION_COOKIE: (KEY, PLAIN)}
    assert written(KEY, X_Forwarded_Proto=proto) == expected


def test_cookie_is_secure_where_https_is_used() -> None:
    assert written(KEY, https=True) == {HOST_SESSION_COOKIE: (KEY, PLAIN | {"Secure"})}


def test_one_of_the_old_name_is_forgotten_for_the_new_one() -> None:
    found = written(KEY, https=True, Cookie=f"{SESSION_COOKIE}=old")
    assert found.keys() == {SESSION_COOKIE, HOST_SESSION_COOKIE}
    assert found[SESSION_COOKIE] == ("", PLAIN | {"Max-Age=0"})


def test_it_is_forgotten_under_the_same_name_and_path() -> None:
    assert written(None, X_Forwarded_Proto="https") == {
        HOST_SESSION_COOKIE: ("", PLAIN | {"Secure", "Max-Age=0"})
    }
    both = written(None, Cookie=f"{SESSION_COOKIE}=a; {HOST_SESSION_COOKIE}=b")
    assert both == {
        SESSION_COOKIE: ("", PLAIN | {"Max-Age=0"}),
        HOST_SESSION_COOKIE: ("", PLAIN | {"Secure", "Max-Age=0"}),
    }


def test_one_that_cannot_be_planted_counts_alone() -> None:
    header = {"Cookie": f"{SESSION_COOKIE}=planted; {HOST_SESSION_COOKIE}={KEY}"}
    assert session_cookies(make_mocked_request("GET", "/", headers=header)) == [KEY]


def test_dead_ones_are_expired_unless_the_answer_sets_another() -> None:
    request = make_mocked_request("GET", "/")
    request[DEAD_COOKIES] = (SESSION_COOKIE, HOST_SESSION_COOKIE)
    response = web.Response()
    set_cookie(request, response, KEY, https=True)
    expire_dead_cookies(request, response)
    assert {name: each.value for name, each in response.cookies.items()} == {
        SESSION_COOKIE: "",
        HOST_SESSION_COOKIE: KEY,
    }
