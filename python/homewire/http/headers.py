"""Names of headers that are ours."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

AUTH_KEY: Final = "X-Auth-Token"
"""A session's key, with its user's id in `USER_ID` (spec 004)."""
USER_ID: Final = "X-User-Id"
RANGE: Final = "vnd.tinkermode.range"
"""Of a list: `<first>-<last>/<how many there are>`."""


def names_key(request: web.Request) -> bool:
    """Whether a header names a key: the client means it, as no browser adds one by itself."""
    return hdrs.AUTHORIZATION in request.headers or AUTH_KEY in request.headers
