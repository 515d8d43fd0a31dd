"""Answers that are whole when they are made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from homewire.errors import RequestError
from homewire.http.documents import SHORTEST_COMPRESSED
from homewire.http.headers import PRIVATE, SERVER, any_origin
from homewire.http.outgoing import PIECE

JSON: Final = "application/json"


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
        """It was whole. Who asks on without reading is answered no further: see `gateway.server`."""


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
    now = int(time.time())
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
