"""Reading requests: ids in paths, queries, and bodies within a budget of memory.

The library leaves an escape that is not UTF-8 as it stands, so that `k%FCche`, Latin-1 for *küche*, would be
the name `k%FCche`. It never raises.

Ids in paths.

What a request announces counts at once, before any of it is read; what it does not announce (chunked
bodies, compressed ones) counts as it comes. It counts until the request is answered, because until
then the body, or what was made of it, is in memory.

A bounded body, whatever the client does with it.

Handlers around handlers, without a middleware that every other request would pay for.
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
    """Raises InvalidInput, naming the last part that varies, if an escape in the path is not UTF-8."""
    raw = request.rel_url.raw_path
    if "%" in raw and not _is_utf8(raw):
        # The parts before it are ids, which were read as numbers.
        raise InvalidInput([*request.match_info, "path"][-2], _NOT_UTF8)


def refuse_misspelt(request: web.Request, known: Iterable[str]) -> None:
    """Raises InvalidInput for a parameter that is a known one but for case, `_` or `-`, or a missing `Id`.

    Ignored like other unknown parameters, a misspelt filter would widen what is asked for.
    """
    names = set(known)
    unknown = [name for name in request.query if name not in names]
    if not unknown:
        return
    meant = {_folded(name): name for name in names}
    for name in unknown:
        right = meant.get(_folded(name))
        if right is not None:
            raise InvalidInput(right, f"is spelled {right}: the query has another spelling of it")


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
    """The id in the path. Raises NotFound for what is no id: no such thing can exist."""
    text = request.match_info[name]
    # One spelling for each: rules by path, as of a proxy, could be walked around with another.
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or text.startswith("0"):
        raise NotFound
    value = int(text)
    if not 0 < value <= LARGEST_ID:
        raise NotFound
    return value


MEBIBYTE: Final = 1024 * 1024


class BodiesFull(Unavailable):
    """So many bytes of bodies are held already. What was not read of this one is not going to be."""

    def __init__(self) -> None:
        super().__init__(limit="request_bodies_bytes")

    @property
    def headers(self) -> Mapping[str, str]:
        return {**super().headers, "Connection": "close"}


class BodyBudget:
    """The sum over all requests, at most `limit` bytes. Used from the event loop alone."""

    def __init__(self, limit: int = 64 * MEBIBYTE) -> None:
        self._limit = limit
        self._held = 0
        self._sizes: dict[int, int] = {}
        """By `id` of the request, which lives until it is answered: requests have no hash, and asking one
        for a value that it does not have costs an exception."""
        self._refused = 0

    def hold(self, request: web.Request, size: int) -> None:
        """This request's body takes `size` bytes in all, as far as is known. Raises BodiesFull."""
        more = size - self._sizes.get(id(request), 0)
        if more <= 0:
            return
        if self._held + more > self._limit:
            self._refused += 1
            raise BodiesFull
        self._held += more
        self._sizes[id(request)] = size

    def released(self, routes: Sequence[web.RouteDef]) -> list[web.RouteDef]:
        """The same routes, whose requests hold nothing once they are answered."""
        return wrapped(routes, self._releasing)

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"request_bodies_bytes": self._held, "request_bodies_refused": self._refused}

    def _releasing(self, handler: Handler) -> Handler:
        async def release_after(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            finally:
                self._held -= self._sizes.pop(id(request), 0)

        return release_after


class UnreadBody(InvalidInput):
    """A body that was not read to its end: what follows on the connection cannot be a request."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


@dataclass(frozen=True, slots=True)
class BodyReader:
    """Reads bodies within bounds; times in seconds."""

    bodies: BodyBudget = field(default_factory=BodyBudget)
    silence: float = 5.0
    """How long a client may send nothing while its body is incomplete. One that counts its
    Content-Length in characters waits for an answer with the last bytes never sent."""
    timeout: float = 30.0
    """How long a whole body may take, however steadily it drips."""

    async def read(self, request: web.Request, limit: int) -> bytes:
        """The body, decompressed, at most `limit` bytes of it.

        Raises UnreadBody when it is too large, incomplete, too slow or badly compressed, BodiesFull when
        others hold as much as may be held.
        """
        content = request.content
        announced = request.content_length
        if announced is not None and announced > limit:
            raise _too_large(request, limit)
        self._hold(request, announced or 0)
        try:
            # The usual request arrived whole, in one segment with its head.
            body = content.read_nowait() if content.is_eof() else await self._collect(request, limit)
            self._hold(request, len(body))
        except TimeoutError as error:
            raise UnreadBody("body", "the body is incomplete: Content-Length counts bytes") from error
        except (web.RequestPayloadError, HttpProcessingError) as error:
            _read_no_further(request)
            raise UnreadBody("body", "the body's encoding is damaged") from error
        except (ConnectionError, web.PayloadAccessError) as error:
            raise UnreadBody("body", "the connection ended before the body did") from error
        if len(body) > limit:
            raise _too_large(request, limit)
        return body

    async def _collect(self, request: web.Request, limit: int) -> bytes:
        """Read until the end or just past `limit`, whichever comes first."""
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
                _read_no_further(request)
            raise


def _too_large(request: web.Request, limit: int) -> UnreadBody:
    if request.headers.get("Content-Encoding") is not None:
        _read_no_further(request)
    return UnreadBody("body", f"larger than {limit} bytes")


def _read_no_further(request: web.Request) -> None:
    """Close after the answer, without the rest of the body.

    Elsewhere aiohttp reads on for a while, so that a client still sending sees the answer. Here it would
    go on decompressing (4 MiB of gzip can hold 4 GiB), or log a damaged body as an unhandled error.
    """
    request.content.feed_eof()
    request.protocol.close()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def wrapped(routes: Sequence[web.RouteDef], wrap: Callable[[Handler], Handler]) -> list[web.RouteDef]:
    """The same routes, with what `wrap` makes of their handlers."""
    return [web.RouteDef(route.method, route.path, wrap(route.handler), route.kwargs) for route in routes]
