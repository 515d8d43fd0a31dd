"""Answers that are the same for everybody: made once, kept compressed, not sent to who has them; and which
answers may be compressed at all."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from aiohttp.web_response import ContentCoding

SHORTEST_COMPRESSED: Final = 1_024
"""Bytes. Of less, compression saves no packet."""
COMPRESSED_TYPES: Final = frozenset({"application/json", "text/html", "text/plain"})
_CODINGS: Final = (ContentCoding.gzip, ContentCoding.deflate)


def accepted_coding(request: web.BaseRequest) -> ContentCoding | None:
    """How an answer may be compressed (RFC 9110 12.5.3); None: not at all."""
    weights: dict[str, float] = {}
    for each in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().split(","):
        name, _, parameter = each.partition(";")
        _, _, weight = parameter.partition("=")
        try:
            weights[name.strip()] = float(weight) if parameter else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    for coding in _CODINGS:
        if weights.get(coding.value, weights.get("*", 0.0)) > 0:
            return coding
    return None


def may_be_compressed(request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Whether an answer is long enough to be compressed, and tells nobody a secret by its length.

    BREACH (CVE-2013-3587) reads a secret out of the lengths of compressed answers: a page of another origin
    has the browser ask again and again, with the browser's own credentials, for an answer that has the secret
    and a text of the page's choice. So nothing that was asked for with a cookie is compressed, and no answer
    to what makes or changes something, where keys are.
    """
    headers = response.headers
    if request.method != hdrs.METH_GET or response.status != 200 or hdrs.ETAG in headers:
        return False
    if hdrs.COOKIE in request.headers or response.content_type not in COMPRESSED_TYPES:
        return False
    body = response.body if isinstance(response, web.Response) else None
    return len(body) > SHORTEST_COMPRESSED if isinstance(body, bytes) else response.content_length is None


class _Made(NamedTuple):
    body: bytes
    zipped: bytes
    etag: str


class Document:
    """One of them. It is made when it is asked for first, beside the event loop."""

    def __init__(
        self,
        make: Callable[[], bytes],
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._make = make
        self._content_type = content_type
        self._charset = "utf-8" if content_type.startswith("text/") else None
        # A new one is seen at once: each time it is asked whether it is still the same.
        self._headers = {hdrs.CACHE_CONTROL: "no-cache", hdrs.VARY: hdrs.ACCEPT_ENCODING, **(headers or {})}
        self._made: _Made | None = None

    async def serve(self, request: web.Request) -> web.Response:
        """200 with the document, or 304 for who names it in If-None-Match."""
        if self._made is None:
            # It takes a tenth of a second, in which others want to be served.
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
