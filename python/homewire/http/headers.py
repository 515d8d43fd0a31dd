"""Names of headers that are ours, and what all answers say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

SERVER: Final = "homewire"
"""The value of `Server`: no version, of this or of what it is made with."""
AUTH_KEY: Final = "X-Auth-Token"
"""A session's key, with its user's id in `USER_ID` (spec 004)."""
USER_ID: Final = "X-User-Id"
RANGE: Final = "vnd.tinkermode.range"
"""Of a list: `<first>-<last>/<how many there are>`."""

ANSWER_HEADERS: Final = (RANGE, "Retry-After", "Location", "ETag", "WWW-Authenticate")
"""What a page of another origin may read beyond what every page may."""
_ON_ANY: Final[Mapping[str, str]] = {
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: ", ".join(ANSWER_HEADERS),
}
_ON_204: Final[Mapping[str, str]] = {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*"}


PRIVATE: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"}
"""On each answer with a body, unless it says something else: most have keys, or what is of people."""
CHALLENGE: Final = 'Bearer realm="homewire"'
"""The value of WWW-Authenticate, which each 401 has (RFC 9110 11.6.1). No browser asks its user for that."""


def any_origin(status: int) -> Mapping[str, str]:
    """What lets pages of any origin read an answer. On a 204, the answer to every event, one header alone."""
    return _ON_204 if status == 204 else _ON_ANY


def names_key(request: web.Request) -> bool:
    """Whether a header names a key: the client means it, as no browser adds one by itself."""
    return hdrs.AUTHORIZATION in request.headers or AUTH_KEY in request.headers
