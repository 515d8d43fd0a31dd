"""What browsers need: cookies of sessions, and CORS.

Its value is the session's key. No script of a page can read it (HttpOnly), no browser sends it with what a
page of another site posts (SameSite=Lax), and where browsers reach this service by https it never goes by
http (Secure). There its name begins with `__Host-`: no browser takes a cookie of that name from another
host, so that a page of a neighbouring host cannot plant one. It lasts as long as the browser keeps running;
how long the session lasts is the store's question alone.

A key is no ambient credential: no browser adds it by itself, so what another origin can do with an answer
it could do without the browser, whatever header it sends. The cookie of a session is: only to the pages of
`cookie_origins` is `Access-Control-Allow-Credentials` said, so that no page of another origin reads what it
got with one; that it changes nothing with one either is looked after in `http.origins`.

Which page a browser's request comes from: this service's own, or that of somebody else.
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

SESSION: Final = "homewire_session"
"""Its name by http; by https, too, in browsers that logged in before 2027."""
HOST_SESSION: Final = f"__Host-{SESSION}"
"""Its name by https."""
DEAD_COOKIES: Final = web.RequestKey("dead cookies", tuple)
"""Names of cookies that came with a request and are the keys of no session: its answer expires them."""


def session_cookies(request: web.BaseRequest) -> list[str]:
    """The values of all cookies of that name that the request has: more than one if somebody planted some.

    Where there is one that cannot be planted, it is the only one.
    """
    found = _cookies(request)
    return found.get(HOST_SESSION) or found.get(SESSION) or []


def counted_names(request: web.BaseRequest) -> tuple[str, ...]:
    """The name under which these came."""
    return tuple(name for name in (HOST_SESSION, SESSION) if name in _cookies(request))[:1]


def _cookies(request: web.BaseRequest) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for header in request.headers.getall(hdrs.COOKIE, ()):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            if (name := name.strip()) in (SESSION, HOST_SESSION) and (given := value.strip().strip('"')):
                found.setdefault(name, []).append(given)
    return found


def set_cookie(request: web.BaseRequest, response: web.StreamResponse, key: str, *, https: bool) -> None:
    """Have the browser keep `key`, in the place of any other that it has. `https`: whether browsers reach
    this service by it, however this request came."""
    secure = https or by_https(request)
    name = HOST_SESSION if secure else SESSION
    _set(response, name, key, None, secure)
    for other in _cookies(request):
        if other != name:
            _expire(request, response, other)


def expire_cookie(request: web.BaseRequest, response: web.StreamResponse, *, https: bool) -> None:
    """Have the browser forget its key."""
    name = HOST_SESSION if https or by_https(request) else SESSION
    for each in {name, *_cookies(request)}:
        _expire(request, response, each)


def expire_dead_cookies(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Have the browser forget the cookies of sessions that are over, unless the answer sets another."""
    for name in request.get(DEAD_COOKIES, ()):
        if name not in response.cookies:
            _expire(request, response, name)


def _expire(request: web.BaseRequest, response: web.StreamResponse, name: str) -> None:
    # Without Secure, no browser takes what is said of a `__Host-` cookie.
    _set(response, name, "", 0, name == HOST_SESSION or by_https(request))


def _set(response: web.StreamResponse, name: str, value: str, max_age: int | None, secure: bool) -> None:
    response.set_cookie(name, value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="Lax")
    # No proxy may give one client's key to another.
    response.headers[hdrs.CACHE_CONTROL] = "no-store"


REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", AUTH_KEY, USER_ID)
"""What a page may send in any case, of what browsers ask about."""
REMEMBERED_S: Final = 86_400
"""How long a browser need not ask again; browsers have bounds of their own."""
MOST_HEADERS: Final = 100
MOST_CHARACTERS: Final = 4_096
"""Of the headers that a page says it wants to send."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
"""A field name (RFC 9110 5.6.2)."""
_NAMED: Final = frozenset(name.lower() for name in REQUEST_HEADERS)


def allow_origins(
    request: web.BaseRequest, response: web.StreamResponse, cookie_origins: Container[str]
) -> None:
    """Let pages of any origin read an answer that was not begun yet; those of `cookie_origins` also what they
    got with a cookie."""
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
    """The answer to OPTIONS where something is served: 204, with what may be asked here."""
    allowed = ", ".join(sorted(methods))
    wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    return web.Response(
        status=204,
        headers={
            hdrs.ALLOW: allowed,
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: allowed,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join((*REQUEST_HEADERS, *_others(wanted))),
            hdrs.ACCESS_CONTROL_MAX_AGE: str(REMEMBERED_S),
            hdrs.VARY: hdrs.ACCESS_CONTROL_REQUEST_HEADERS,
        },
    )


def _others(wanted: str) -> list[str]:
    """The headers that a page wants to send beside those that it may send in any case. `*` would not do:
    browsers do not take it for Authorization, nor where a cookie is sent along."""
    names = [name.strip().lower() for name in wanted.split(",")] if len(wanted) <= MOST_CHARACTERS else []
    found = dict.fromkeys(name for name in names if name not in _NAMED and _TOKEN.fullmatch(name))
    return list(found)[:MOST_HEADERS]


def refuse_cross_site(request: web.Request, allowed: Container[str] = ()) -> None:
    """Raise PermissionDenied for a request from a page of another origin, unless that is one of `allowed`.

    A browser says whose page it is in Origin, or else in Referer. Who says nothing is no browser, or
    acts for nobody's page.
    """
    headers = request.headers
    named = headers.get(hdrs.ORIGIN)
    origin = origin_of(headers.get(hdrs.REFERER, "") if named is None else named)
    if named is None and hdrs.REFERER not in headers:
        return
    if origin is not None and (origin in allowed or _is_own(request, origin)):
        return
    raise PermissionDenied(
        "CROSS_SITE", problem="a page of another origin acts with this session's cookie; send the key instead"
    )


def _is_own(request: web.Request, origin: str) -> bool:
    scheme = origin.partition(":")[0]
    # Before a balancer that ends TLS there is https where there is http here; never the other way round.
    if scheme == "http" and by_https(request):
        return False
    return origin == origin_of(f"{scheme}://{request.headers.get(hdrs.HOST, '')}")
