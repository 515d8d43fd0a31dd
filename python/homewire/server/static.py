"""Documents and pages that are the same for every caller: made once, compressed once, cached by their ETag.

A page is one answer that includes its style and script. Its content security policy lets it load nothing
else.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from aiohttp.web_response import ContentCoding

from homewire.server.answers import SHORTEST_COMPRESSED, accepted_coding


class _Made(NamedTuple):
    body: bytes
    zipped: bytes
    etag: str


class StaticDocument:
    """A document that is the same for every caller. It is made in a thread, at the first request."""

    def __init__(
        self,
        make: Callable[[], bytes],
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._make = make
        self._content_type = content_type
        self._charset = "utf-8" if content_type.startswith("text/") else None
        # Clients ask each time whether the document has changed.
        self._headers = {hdrs.CACHE_CONTROL: "no-cache", hdrs.VARY: hdrs.ACCEPT_ENCODING, **(headers or {})}
        self._made: _Made | None = None

    async def serve(self, request: web.Request) -> web.Response:
        """200 with the document, or 304 if the request names its current version in If-None-Match."""
        if self._made is None:
            # Making it takes up to 0.1 s, during which the event loop serves other requests.
            self._made = await asyncio.to_thread(self._all)
        made = self._made
        known = request.if_none_match or ()
        zipped = accepted_coding(request) is ContentCoding.gzip and len(made.body) > SHORTEST_COMPRESSED
        etag = f"{made.etag}-gzip" if zipped else made.etag
        headers = {**self._headers, hdrs.ETAG: f'"{etag}"'}
        if any(each.value in ("*", etag) for each in known):
            return web.Response(status=304, headers=headers)
        if zipped:
            headers[hdrs.CONTENT_ENCODING] = ContentCoding.gzip.value
        body = made.zipped if zipped else made.body
        return web.Response(
            body=body, content_type=self._content_type, charset=self._charset, headers=headers
        )

    def _all(self) -> _Made:
        body = self._make()
        etag = hashlib.sha256(body).hexdigest()[:32]
        return _Made(body, gzip.compress(body, mtime=0), etag)


def static_page(make: Callable[[], bytes], style: str, script: str = "") -> StaticDocument:
    """A page in HTML that includes this style and this script, and no others.

    A page with a script may send requests to this homewire.
    """
    rules = ["default-src 'none'", f"style-src {_hash(style)}"]
    if script:
        rules += [f"script-src {_hash(script)}", "connect-src 'self'"]
    rules += ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    headers = {"Content-Security-Policy": "; ".join(rules), **_PAGE_HEADERS}
    return StaticDocument(make, "text/html", headers)


_PAGE_HEADERS: Final = {"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


def _hash(text: str) -> str:
    """The hash of a style or script in a policy (CSP 3, *hash-source*)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
