"""Answers that are longer than what is to be in memory: made while they are sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Self

from aiohttp import hdrs, web

logger = logging.getLogger(__name__)

STALLED_S: Final = 30.0
"""How long a client may take nothing of what is sent."""


class Streamed(web.StreamResponse):
    """A 200 with the chunks of a generator as its body.

    Once the answer has begun there is no way to say that something went wrong: then the connection is cut
    off in the middle, so that nobody takes a part for the whole.
    """

    def __init__(
        self,
        request: web.Request,
        first: bytes,
        rest: AsyncGenerator[bytes],
        content_type: str,
        stalled_s: float,
    ) -> None:
        super().__init__()
        self.content_type = content_type
        self._stalled_s = stalled_s
        self._request = request
        self._first = first
        self._rest = rest

    @classmethod
    async def begun(
        cls,
        request: web.Request,
        chunks: AsyncGenerator[bytes],
        content_type: str = "application/json",
        stalled_s: float = STALLED_S,
    ) -> Self:
        """An answer whose first chunk was made already. Raises what that raised, so that it can be answered
        like any other error."""
        return cls(request, await anext(chunks), chunks, content_type, stalled_s)

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends all of it. aiohttp calls this when the head is on its way."""
        async with aclosing(self._rest):
            if self._request.method != hdrs.METH_HEAD:
                await self._send()
        await super().write_eof(data)

    async def _send(self) -> None:
        try:
            await self._send_chunk(self._first)
            async for chunk in self._rest:
                await self._send_chunk(chunk)
        except ConnectionError:
            raise
        except Exception as error:
            logger.warning("an answer was cut off: %s", type(error).__name__)
            # aiohttp would close by itself, but only when the client has taken what is in the buffer.
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("an answer was cut off") from error

    async def _send_chunk(self, chunk: bytes) -> None:
        async with asyncio.timeout(self._stalled_s):
            await self.write(chunk)
