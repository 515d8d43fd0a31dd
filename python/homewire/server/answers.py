"""HTTP answers with a complete body, their common headers, and their compression."""

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
    """The answer to a request whose socket belongs to the core now: nothing is sent."""

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, _data: Any = b"") -> None:
        return None


def json_answer(status: int, content: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in JSON. With `Connection: close` in `headers` it is the last one of its connection."""
    response = web.Response(status=status, body=orjson.dumps(content), content_type=JSON, headers=headers)
    if headers and headers.get("Connection") == "close":
        response.force_close()
    return response


def error_answer(error: RequestError) -> web.Response:
    """An error in the format of the API: JSON ``{"reason", "data"}``."""
    return json_answer(error.status, {"reason": error.reason, "data": error.data}, error.headers)


class WholeAnswer(web.StreamResponse):
    """An answer whose head and body are one write, for clients that keep their connection.

    No header can be added to it. aiohttp makes a head header by header, which was a tenth of the time of a
    GET. Here the head, except for the length, is made once a second.
    """

    def __init__(self, status: int, body: bytes | None) -> None:
        super().__init__(status=status)
        self._whole = _head(status) + (b"\r\n" if body is None else _body(body))
        self._keep_alive = True

    def force_close(self) -> None:
        """Make this the last answer of the connection."""
        self._whole = self._whole.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        super().force_close()

    @property
    def keep_alive(self) -> bool:
        return bool(self._keep_alive)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write head and body. Raises ConnectionError when the client is gone."""
        writer: AbstractStreamWriter = request.writer
        await writer.write(self._whole)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write. A client that does not read gets no further answers: see
        `server.http`."""


def whole_answer(request: web.Request, status: int, body: bytes | None = None) -> web.StreamResponse:
    """An answer in JSON, or without a body (204 only), in one write if the request allows that."""
    small = body is None or len(body) <= PIECE
    if (
        small
        and request.keep_alive
        and request.version == HttpVersion11
        and not _needs_headers(request, body)
    ):
        return WholeAnswer(status, body)
    if body is None:
        return web.Response(status=status)
    return web.Response(status=status, body=body, content_type=JSON)


def _needs_headers(request: web.Request, body: bytes | None) -> bool:
    """Whether the answer has headers that depend on the request, e.g. for a browser's origin or cookie."""
    headers = request.headers
    if body is not None and len(body) > SHORTEST_COMPRESSED and hdrs.ACCEPT_ENCODING in headers:
        return True
    return request.method == hdrs.METH_HEAD or hdrs.ORIGIN in headers or hdrs.COOKIE in headers


_heads: dict[int, tuple[int, bytes]] = {}
"""By status: the second in which the head was made, and the head without headers of a body."""


def _head(status: int) -> bytes:
    now = MACHINE_CLOCK.now_ms() // 1000
    made_in, head = _heads.get(status, (0, b""))
    if made_in != now:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        headers = any_origin(status) if status == 204 else {**any_origin(status), **PRIVATE}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Date: {formatdate(now, usegmt=True)}", f"Server: {SERVER}", ""]
        head = "\r\n".join(lines).encode()
        _heads[status] = now, head
    return head


def _body(body: bytes) -> bytes:
    return b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (JSON.encode(), len(body), body)


SHORTEST_COMPRESSED: Final = 1_024
"""In bytes. Compressing a shorter answer saves no packet."""
COMPRESSED_TYPES: Final = frozenset({"application/json", "text/html", "text/plain"})
_CODINGS: Final = (ContentCoding.gzip, ContentCoding.deflate)


def accepted_coding(request: web.BaseRequest) -> ContentCoding | None:
    """The compression that the client accepts (RFC 9110 12.5.3), or None."""
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
    """Whether an answer is long enough to be compressed, and its length cannot reveal a secret.

    The attack BREACH (CVE-2013-3587) finds a secret by the lengths of compressed answers. A page of another
    origin makes the browser send many requests with the browser's credentials. The answer has the secret, and
    a text that the page chose. So no answer to a request with a cookie is compressed, and none to a request
    that creates or changes something, which may have keys.
    """
    headers = response.headers
    if request.method != hdrs.METH_GET or response.status != 200 or hdrs.ETAG in headers:
        return False
    if hdrs.COOKIE in request.headers or response.content_type not in COMPRESSED_TYPES:
        return False
    body = response.body if isinstance(response, web.Response) else None
    return len(body) > SHORTEST_COMPRESSED if isinstance(body, bytes) else response.content_length is None


SERVER: Final = "homewire"
"""The value of the header `Server`. It names no versions."""
AUTH_KEY: Final = "X-Auth-Token"
"""The header with the key of a session; `USER_ID` has the id of its user (spec 004)."""
USER_ID: Final = "X-User-Id"
RANGE: Final = "vnd.tinkermode.range"
"""The header of a list: `<first>-<last>/<number of items>`."""

ANSWER_HEADERS: Final = (RANGE, "Retry-After", "Location", "ETag", "WWW-Authenticate")
"""Headers that a page of another origin may read, besides those that every page may read."""
_ANY_ORIGIN: Final[Mapping[str, str]] = {
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: ", ".join(ANSWER_HEADERS),
}
_ANY_ORIGIN_204: Final[Mapping[str, str]] = {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*"}


PRIVATE: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of each answer with a body, unless it has its own: most contain keys or personal data."""
CHALLENGE: Final = 'Bearer realm="homewire"'
"""The value of WWW-Authenticate, which each 401 has (RFC 9110 11.6.1). Browsers show no dialog for it."""


def any_origin(status: int) -> Mapping[str, str]:
    """The headers that let pages of any origin read an answer. A 204, the answer to each event, has only
    one."""
    return _ANY_ORIGIN_204 if status == 204 else _ANY_ORIGIN


def names_key(request: web.Request) -> bool:
    """Whether a header has a key. Browsers add none by themselves, so the client sent it on purpose."""
    return hdrs.AUTHORIZATION in request.headers or AUTH_KEY in request.headers
