"""The cookie of a session: what is in it, and how a browser is told of it.

Its value is the session's key. No script of a page can read it (HttpOnly), no browser sends it with what a
page of another site posts (SameSite=Lax), and once it came by https it never goes by http (Secure). It lasts
as long as the browser keeps running; how long the session lasts is the store's question alone.
"""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from homewire.http.clients import by_https

SESSION: Final = "homewire_session"
"""Its name."""


def session_cookies(request: web.Request) -> list[str]:
    """The values of all cookies of that name that the request has: more than one if somebody planted some."""
    found = []
    for header in request.headers.getall(hdrs.COOKIE, ()):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            if name.strip() == SESSION and (given := value.strip().strip('"')):
                found.append(given)
    return found


def set_cookie(request: web.Request, response: web.StreamResponse, key: str) -> None:
    """Have the browser keep `key`, in the place of any other that it has."""
    _set(request, response, key, None)


def expire_cookie(request: web.Request, response: web.StreamResponse) -> None:
    """Have the browser forget its key."""
    _set(request, response, "", 0)


def _set(request: web.Request, response: web.StreamResponse, value: str, max_age: int | None) -> None:
    response.set_cookie(
        SESSION,
        value,
        max_age=max_age,
        path="/",
        secure=by_https(request),
        httponly=True,
        samesite="Lax",
    )
    # No proxy may give one client's key to another.
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
