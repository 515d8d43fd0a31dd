"""Cross-origin requests: any page may call, with a key.

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
