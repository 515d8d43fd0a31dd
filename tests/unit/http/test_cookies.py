"""The cookie of a session, as it comes and as it is set."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from homewire.http.clients import TrustedProxies
from homewire.http.cookies import expire_cookie, session_cookies, set_cookie
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


def written(key: str | None, **headers: str) -> tuple[str, set[str]]:
    """The cookie that is set, and its attributes."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request, response = make_mocked_request("POST", "/", headers=given), web.Response()
    request.protocol.peer = PROXIES.peer("10.0.0.1")  # type: ignore[attr-defined]
    if key is None:
        expire_cookie(request, response)
    else:
        set_cookie(request, response, key)
    assert response.headers["Cache-Control"] == "no-store"
    cookie, *attributes = response.cookies["homewire_session"].OutputString().split("; ")
    return cookie, set(attributes)


def test_no_script_reads_it_and_no_other_site_sends_it() -> None:
    assert written(KEY) == (f"homewire_session={KEY}", {"HttpOnly", "Path=/", "SameSite=Lax"})


@pytest.mark.parametrize(
    ("proto", "secure"),
    [("https", True), ("HTTPS", True), ("http, https", True), ("http", False), ("x", False)],
)
def test_what_came_by_https_goes_by_https_only(proto: str, secure: bool) -> None:
    assert ("Secure" in written(KEY, X_Forwarded_Proto=proto)[1]) is secure


def test_it_is_forgotten_under_the_same_name_and_path() -> None:
    cookie, attributes = written(None, X_Forwarded_Proto="https")
    assert cookie in ("homewire_session=", 'homewire_session=""')
    assert attributes == {"HttpOnly", "Path=/", "SameSite=Lax", "Secure", "Max-Age=0"}
