"""The cookie of a session: what is in it, and how a browser is told of it.

Its value is the session's key. No script of a page can read it (HttpOnly), no browser sends it with what a
page of another site posts (SameSite=Lax), and where browsers reach this service by https it never goes by
http (Secure). There its name begins with `__Host-`: no browser takes a cookie of that name from another
host, so that a page of a neighbouring host cannot plant one. It lasts as long as the browser keeps running;
how long the session lasts is the store's question alone.
"""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

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
