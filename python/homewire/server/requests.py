"""Reading requests: queries, ids in paths, and bodies within a budget of memory.

Escapes in a URL must be UTF-8. aiohttp does not raise for others and leaves them unchanged: `k%FCche`,
Latin-1 for *küche*, would become the name `k%FCche`.

The length that a request announces counts against the budget before its body is read. A body without a length
(chunked or compressed) counts as it is read. It counts until the request is answered, because until then it
is in memory, or what was made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from homewire.errors import InvalidInput, NotFound, Unavailable

_NOT_UTF8 = "must be UTF-8, percent-encoded"


def require_utf8_query(request: web.Request) -> None:
    """Raises InvalidInput, naming the parameter, if an escape in the query is not UTF-8."""
    raw = request.rel_url.raw_query_string
    if "%" not in raw:
        return
    for pair in raw.split("&"):
        if not _is_utf8(pair):
            name = pair.partition("=")[0]
            raise InvalidInput(name if name.isidentifier() else "query", _NOT_UTF8)


def require_utf8_path(request: web.Request) -> None:
    """Raises InvalidInput, naming the last parameter of the path, if an escape in the path is not UTF-8."""
    raw = request.rel_url.raw_path
    if "%" in raw and not _is_utf8(raw):
        # The parameters before it are ids, which were parsed already.
        raise InvalidInput([*request.match_info, "path"][-2], _NOT_UTF8)


def refuse_misspelt(request: web.Request, known: Iterable[str]) -> None:
    """Raises InvalidInput for a parameter that differs from a known one only by case, `_`, `-` or a missing
    `Id`.

    If a misspelt filter were ignored like other unknown parameters, the result would have more than was
    requested.
    """
    names = set(known)
    unknown = [name for name in request.query if name not in names]
    if not unknown:
        return
    meant = {_folded(name): name for name in names}
    for name in unknown:
        right = meant.get(_folded(name))
        if right is not None:
            raise InvalidInput(right, f"must be spelled {right}")


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").removesuffix("s").removesuffix("id")


def _is_utf8(text: str) -> bool:
    try:
        unquote_to_bytes(text).decode()
    except UnicodeError:
        return False
    return True


LARGEST_ID: Final = 2**63 - 1


def path_id(request: web.Request, name: str) -> int:
    """The id in the path. Raises NotFound for any text that is not an id."""
    text = request.match_info[name]
    # An id has one spelling. Another one could bypass rules of a proxy that match paths.
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or text.startswith("0"):
        raise NotFound
    value = int(text)
    if not 0 < value <= LARGEST_ID:
        raise NotFound
    return value


MEBIBYTE: Final = 1024 * 1024


class BodiesFull(Unavailable):
    """The budget of bodies is used up. The rest of this body is not read."""

    def __init__(self) -> None:
        super().__init__(limit="request_bodies_bytes")

    @property
    def headers(self) -> Mapping[str, str]:
        return {**super().headers, "Connection": "close"}


class BodyBudget:
    """The bodies of all requests, at most `limit` bytes. Used from the event loop alone."""

    def __init__(self, limit: int = 64 * MEBIBYTE) -> None:
        self._limit = limit
        self._held = 0
        self._sizes: dict[int, int] = {}
        """By `id` of the request, which exists until it is answered. A request cannot be hashed, and looking
        up a missing value of a request costs an exception."""
        self._refused = 0

    def hold(self, request: web.Request, size: int) -> None:
        """Count `size` bytes in all for the body of this request. Raises BodiesFull."""
        more = size - self._sizes.get(id(request), 0)
        if more <= 0:
            return
        if self._held + more > self._limit:
            self._refused += 1
            raise BodiesFull
        self._held += more
        self._sizes[id(request)] = size

    def released(self, routes: Sequence[web.RouteDef]) -> list[web.RouteDef]:
        """The same routes; their handlers release the bytes of a request when it is answered."""
        return wrapped(routes, self._releasing)

    def metrics(self) -> Mapping[str, int]:
        """Values of `metrics.GAUGES` and `metrics.COUNTERS`."""
        return {"request_bodies_bytes": self._held, "request_bodies_refused": self._refused}

    def _releasing(self, handler: Handler) -> Handler:
        async def release_after(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            finally:
                self._held -= self._sizes.pop(id(request), 0)

        return release_after


class UnreadBody(InvalidInput):
    """A body was not read to its end, so the connection cannot be used for another request."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Reads bodies within bounds. Times are in seconds."""

    bodies: BodyBudget = field(default_factory=BodyBudget)
    silence: float = 5.0
    """How long a client may send nothing while its body is incomplete. A client that counts its
    Content-Length in bytes of another encoding never sends the last bytes, and waits for an answer."""
    timeout: float = 30.0
    """How long a whole body may take."""

    async def read(self, request: web.Request, limit: int) -> bytes:
        """Read the body, decompressed, of at most `limit` bytes.

        Raises UnreadBody if it is too large, incomplete, too slow or badly compressed, BodiesFull if the
        budget is used up.
        """
        content = request.content
        announced = request.content_length
        if announced is not None and announced > limit:
            raise _too_large(request, limit)
        try:
            # Usually the body came in one segment with the head.
            if content.is_eof():
                body = content.read_nowait()
            else:
                self._hold(request, announced or 0)
                body = await self._collect(request, limit)
            self._hold(request, len(body))
        except TimeoutError as error:
            raise UnreadBody("body", "the body is incomplete: Content-Length counts bytes") from error
        except (web.RequestPayloadError, HttpProcessingError) as error:
            _stop_reading(request)
            raise UnreadBody("body", "the body's encoding is damaged") from error
        except (ConnectionError, web.PayloadAccessError) as error:
            raise UnreadBody("body", "the connection ended before the body did") from error
        if len(body) > limit:
            raise _too_large(request, limit)
        return body

    async def _collect(self, request: web.Request, limit: int) -> bytes:
        """Read to the end, or until there are more than `limit` bytes."""
        loop, content = asyncio.get_running_loop(), request.content
        end = loop.time() + self.timeout
        chunks: list[bytes] = []
        size = 0
        async with asyncio.timeout(self.silence) as timeout:
            while size <= limit and not content.at_eof():
                chunk = await content.readany()
                size += len(chunk)
                chunks.append(chunk)
                self._hold(request, size)
                timeout.reschedule(min(end, loop.time() + self.silence))
        return b"".join(chunks)

    def _hold(self, request: web.Request, size: int) -> None:
        try:
            self.bodies.hold(request, size)
        except BodiesFull:
            if request.headers.get("Content-Encoding") is not None:
                _stop_reading(request)
            raise


def _too_large(request: web.Request, limit: int) -> UnreadBody:
    if request.headers.get("Content-Encoding") is not None:
        _stop_reading(request)
    return UnreadBody("body", f"larger than {limit} bytes")


def _stop_reading(request: web.Request) -> None:
    """Close the connection after the answer, without reading the rest of the body.

    By default aiohttp continues to read for a while, so that a client that is still sending gets the answer.
    Here it would continue to decompress (4 MiB of gzip can contain 4 GiB), or log a damaged body as an
    unhandled error.
    """
    request.content.feed_eof()
    request.protocol.close()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def wrapped(routes: Sequence[web.RouteDef], wrap: Callable[[Handler], Handler]) -> list[web.RouteDef]:
    """The same routes with handlers wrapped by `wrap`. A middleware would cost every other request, too."""
    return [web.RouteDef(route.method, route.path, wrap(route.handler), route.kwargs) for route in routes]
