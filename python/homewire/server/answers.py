"""Answers that are whole when they are made.

Answers that are the same for everybody: made once, kept compressed, not sent to who has them; and which
answers may be compressed at all.

Names of headers that are ours, and what all answers say.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_response import ContentCoding

from homewire.clock import MACHINE_CLOCK
from homewire.errors import RequestError
from homewire.server.streaming import PIECE

JSON: Final = "application/json"


class HandedOff(web.StreamResponse):
    """The answer to a request whose socket aiohttp has handed to the core: nothing is sent."""

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, _data: Any = b"") -> None:
        return None


def json_answer(status: int, content: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON. With `Connection: close` among `headers` the connection ends with it."""
    response = web.Response(status=status, body=orjson.dumps(content), content_type=JSON, headers=headers)
    if headers and headers.get("Connection") == "close":
        response.force_close()
    return response


def error_answer(error: RequestError) -> web.Response:
    """An error as the MODE resources answer it: JSON ``{"reason", "data"}``."""
    return json_answer(error.status, {"reason": error.reason, "data": error.data}, error.headers)


class WholeAnswer(web.StreamResponse):
    """Head and body in one write, for clients that keep their connection. No header can be added to it.

    aiohttp makes a head header by header, which was a tenth of the time of a read; of this one all but the
    length is made once a second.
    """

    def __init__(self, status: int, body: bytes | None) -> None:
        super().__init__(status=status)
        self._whole = _head(status) + (b"\r\n" if body is None else _body(body))
        self._keep_alive = True

    def force_close(self) -> None:
        """Say that the connection ends with it."""
        self._whole = self._whole.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        super().force_close()

    @property
    def keep_alive(self) -> bool:
        return bool(self._keep_alive)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write all of it. Raises ConnectionError when the client is gone."""
        writer: AbstractStreamWriter = request.writer
        await writer.write(self._whole)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """The response was complete. Without reading, a client gets no further ones: see `server.http`."""


def whole_answer(request: web.Request, status: int, body: bytes | None = None) -> web.StreamResponse:
    """JSON, or (204 only) no body, in as few steps as the client allows."""
    small = body is None or len(body) <= PIECE
    if small and request.keep_alive and request.version == HttpVersion11 and not _wants_more(request, body):
        return WholeAnswer(status, body)
    if body is None:
        return web.Response(status=status)
    return web.Response(status=status, body=body, content_type=JSON)


def _wants_more(request: web.Request, body: bytes | None) -> bool:
    """Whether an answer says what depends on the request: a browser's has an origin or a cookie."""
    headers = request.headers
    if body is not None and len(body) > SHORTEST_COMPRESSED and hdrs.ACCEPT_ENCODING in headers:
        return True
    return request.method == hdrs.METH_HEAD or hdrs.ORIGIN in headers or hdrs.COOKIE in headers


_heads: dict[int, tuple[int, bytes]] = {}
"""By status: the second that it was made in, and a head without what is said of a body."""


def _head(status: int) -> bytes:
    now = MACHINE_CLOCK.now_ms() // 1000
    made_in, head = _heads.get(status, (0, b""))
    if made_in != now:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        said = any_origin(status) if status == 204 else {**any_origin(status), **PRIVATE}
        lines += [f"{name}: {value}" for name, value in said.items()]
        lines += [f"Date: {formatdate(now, usegmt=True)}", f"Server: {SERVER}", ""]
        head = "\r\n".join(lines).encode()
        _heads[status] = now, head
    return head


def _body(body: bytes) -> bytes:
    return b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (JSON.encode(), len(body), body)


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
