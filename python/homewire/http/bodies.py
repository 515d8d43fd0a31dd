"""How many bytes of request bodies are held at once, over all requests.

What a request announces counts at once, before any of it is read; what it does not announce (chunked
bodies, compressed ones) counts as it comes. It counts until the request is answered, because until
then the body, or what was made of it, is in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from homewire.errors import Unavailable
from homewire.http.wrapping import Handler, wrapped

MEBIBYTE: Final = 1024 * 1024


class BodiesFull(Unavailable):
    """So many bytes of bodies are held already. What was not read of this one is not going to be."""

    def __init__(self) -> None:
        super().__init__(limit="ingest_bytes")

    @property
    def headers(self) -> Mapping[str, str]:
        return {**super().headers, "Connection": "close"}


class Bodies:
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

    def figures(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"ingest_bytes": self._held, "ingest_refused": self._refused}

    def _releasing(self, handler: Handler) -> Handler:
        async def release_after(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            finally:
                self._held -= self._sizes.pop(id(request), 0)

        return release_after
