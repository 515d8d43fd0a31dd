"""Cross-origin requests: any page may call, with a key.

A key is no ambient credential: no browser adds it by itself, so what another origin can do with an answer
it could do without the browser. The cookie of a session is: `Access-Control-Allow-Credentials` is never said,
so that no page of another origin reads what it got with one; that it changes nothing with one either is
looked after in `http.origins`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp import hdrs, web

from homewire.http.headers import AUTH_KEY, USER_ID, any_origin

REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", AUTH_KEY, USER_ID)
"""What a page may send that browsers ask about."""
METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
REMEMBERED_S: Final = 86_400
"""How long a browser need not ask again; browsers have bounds of their own."""

_REQUEST_HEADERS: Final = ", ".join(REQUEST_HEADERS)


def allow_any_origin(response: web.StreamResponse) -> None:
    """Let pages of any origin read an answer that was not begun yet."""
    response.headers.update(any_origin(response.status))


def preflight(methods: Iterable[str] = METHODS) -> web.Response:
    """The answer to OPTIONS: 204, with what may be asked here.

    Also for a path that there is not: the 404 of the request itself says more than a failed preflight.
    """
    allowed = ", ".join(sorted(methods))
    return web.Response(
        status=204,
        headers={
            hdrs.ALLOW: allowed,
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: allowed,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(REMEMBERED_S),
        },
    )
