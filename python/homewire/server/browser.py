"""Support of browsers: session cookies, CORS, and the refusal of cross-site requests.

The value of a session cookie is the key of the session. Scripts of a page cannot read it (HttpOnly). Browsers
do not send it with a POST from a page of another site (SameSite=Lax). If browsers reach this service by
https, they never send it by http (Secure), and its name begins with `__Host-`: browsers accept a cookie of
such a name only from this host, so a page of a neighbouring host cannot set one. The cookie ends with the
browser. The lifetime of the session is in the store.

A key in a header is no ambient credential: browsers do not add it by themselves. So pages of every origin may
read an answer to a request without a cookie. A session cookie is an ambient credential. Only pages of
`cookie_origins` get `Access-Control-Allow-Credentials`, so that no other page reads an answer to a request
with a cookie. `refuse_cross_site` makes sure that no other page changes anything with one.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Final

from aiohttp import hdrs, web

from homewire.errors import PermissionDenied
from homewire.hosts import origin_of
from homewire.server.answers import AUTH_KEY, USER_ID, any_origin
from homewire.server.clients import by_https

SESSION_COOKIE: Final = "homewire_session"
"""The name of the cookie by http. Browsers that logged in by https before 2027 have it, too."""
HOST_SESSION_COOKIE: Final = f"__Host-{SESSION_COOKIE}"
"""The name of the cookie by https."""
DEAD_COOKIES: Final = web.RequestKey("dead cookies", tuple)
"""Names of cookies of a request whose sessions do not exist. Its answer expires them."""


def session_cookies(request: web.BaseRequest) -> list[str]:
    """The values of the session cookies of a request.

    A cookie with the prefix `__Host-` is returned alone, because another host cannot set it. Without one
    there may be several values, of which other hosts have set some.
    """
    found = _cookies(request)
    return found.get(HOST_SESSION_COOKIE) or found.get(SESSION_COOKIE) or []


def counted_names(request: web.BaseRequest) -> tuple[str, ...]:
    """The name of the cookies that `session_cookies` returns."""
    return tuple(name for name in (HOST_SESSION_COOKIE, SESSION_COOKIE) if name in _cookies(request))[:1]


def _cookies(request: web.BaseRequest) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for header in request.headers.getall(hdrs.COOKIE, ()):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            if (name := name.strip()) in (SESSION_COOKIE, HOST_SESSION_COOKIE) and (
                given := value.strip().strip('"')
            ):
                found.setdefault(name, []).append(given)
    return found


def set_cookie(request: web.BaseRequest, response: web.StreamResponse, key: str, *, https: bool) -> None:
    """Set the session cookie to `key`, and expire other session cookies of the request. `https` tells that
    browsers reach this service by https, even if this request came by http."""
    secure = https or by_https(request)
    name = HOST_SESSION_COOKIE if secure else SESSION_COOKIE
    _set(response, name, key, None, secure)
    for other in _cookies(request):
        if other != name:
            _expire(request, response, other)


def expire_cookie(request: web.BaseRequest, response: web.StreamResponse, *, https: bool) -> None:
    """Expire the session cookies of the request."""
    name = HOST_SESSION_COOKIE if https or by_https(request) else SESSION_COOKIE
    for each in {name, *_cookies(request)}:
        _expire(request, response, each)


def expire_dead_cookies(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Expire the cookies of sessions that do not exist, unless the answer sets them."""
    for name in request.get(DEAD_COOKIES, ()):
        if name not in response.cookies:
            _expire(request, response, name)


def _expire(request: web.BaseRequest, response: web.StreamResponse, name: str) -> None:
    # Browsers ignore a `__Host-` cookie without Secure.
    _set(response, name, "", 0, name == HOST_SESSION_COOKIE or by_https(request))


def _set(response: web.StreamResponse, name: str, value: str, max_age: int | None, secure: bool) -> None:
    response.set_cookie(name, value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="Lax")
    # So that no proxy caches the key of a client.
    response.headers[hdrs.CACHE_CONTROL] = "no-store"


REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", AUTH_KEY, USER_ID)
"""Headers that pages may always send."""
PREFLIGHT_CACHE_S: Final = 86_400
"""How long browsers may cache the answer to a preflight request. They have bounds of their own."""
MOST_HEADERS: Final = 100
MOST_CHARACTERS: Final = 4_096
"""Bounds of the headers that a page asks to send."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
"""A field name (RFC 9110 5.6.2)."""
_NAMED: Final = frozenset(name.lower() for name in REQUEST_HEADERS)


def allow_origins(
    request: web.BaseRequest, response: web.StreamResponse, cookie_origins: Container[str]
) -> None:
    """Let pages of any origin read an answer, and those of `cookie_origins` also if they sent a cookie. To be
    called before the answer is sent."""
    headers = response.headers
    headers.update(any_origin(response.status))
    if not cookie_origins:
        return
    headers.add(hdrs.VARY, hdrs.ORIGIN)
    given = request.headers.get(hdrs.ORIGIN, "")
    if given and origin_of(given) in cookie_origins:
        headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = given
        headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"


def preflight(request: web.BaseRequest, methods: Iterable[str]) -> web.Response:
    """The answer to OPTIONS for an existing path: 204, with the allowed methods and headers."""
    allowed = ", ".join(sorted(methods))
    wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    return web.Response(
        status=204,
        headers={
            hdrs.ALLOW: allowed,
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: allowed,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join((*REQUEST_HEADERS, *_others(wanted))),
            hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_CACHE_S),
            hdrs.VARY: hdrs.ACCESS_CONTROL_REQUEST_HEADERS,
        },
    )


def _others(wanted: str) -> list[str]:
    """The headers that a page asks to send, without those that it may always send. `*` is not enough: for
    browsers it includes neither Authorization nor requests with a cookie."""
    names = [name.strip().lower() for name in wanted.split(",")] if len(wanted) <= MOST_CHARACTERS else []
    found = dict.fromkeys(name for name in names if name not in _NAMED and _TOKEN.fullmatch(name))
    return list(found)[:MOST_HEADERS]


def refuse_cross_site(request: web.Request, allowed: Container[str] = ()) -> None:
    """Raise PermissionDenied for a request from a page of another origin, unless that is one of `allowed`.

    Browsers name the origin of the page in Origin, or else in Referer. A request with neither is of no
    browser, or of no page.
    """
    headers = request.headers
    named = headers.get(hdrs.ORIGIN)
    origin = origin_of(headers.get(hdrs.REFERER, "") if named is None else named)
    if named is None and hdrs.REFERER not in headers:
        return
    if origin is not None and (origin in allowed or _is_own(request, origin)):
        return
    raise PermissionDenied(
        "CROSS_SITE",
        problem="a page of another origin sent this session's cookie: send the key in a header instead",
    )


def _is_own(request: web.Request, origin: str) -> bool:
    scheme = origin.partition(":")[0]
    # A balancer that terminates TLS turns https into http, and never http into https.
    if scheme == "http" and by_https(request):
        return False
    return origin == origin_of(f"{scheme}://{request.headers.get(hdrs.HOST, '')}")
