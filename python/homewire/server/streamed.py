"""Answers that are longer than what is to be in memory: made while they are sent, a piece at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Final, Self

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from homewire.server.outgoing import PIECE, Answers, Outgoing, Owners

logger = logging.getLogger(__name__)

JSON: Final = "application/json"


class Streamed(web.StreamResponse):
    """The chunks of a generator as the body of an answer.

    Once the answer has begun there is no way to say that something went wrong: then the connection is cut
    off in the middle, so that nobody takes a part for the whole. So it is for a client that does not take
    the answer at its pace (`http.outgoing`), or not within `whole_s`, where that is given.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        outgoing: Outgoing,
        first: bytes,
        rest: AsyncGenerator[bytes],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        whole_s: float | None = None,
    ) -> None:
        super().__init__(status=status, headers=headers)
        self._request = request
        self._outgoing = outgoing
        self._first = first
        self._rest = rest
        self._whole_s = whole_s

    @classmethod
    async def begun(
        cls,
        request: web.Request,
        chunks: AsyncGenerator[bytes],
        answers: Answers,
        owners: Owners,
        *,
        headers: Mapping[str, str] | None = None,
        whole_s: float | None = None,
    ) -> Self:
        """JSON, whose first chunk was made already. Raises what that raised, so that it can be answered
        like any other error, and AnswersFull."""
        first = await anext(chunks)
        try:
            outgoing = answers.admit(owners, len(first) + PIECE)
        except BaseException:
            await chunks.aclose()
            raise
        made = cls(request, outgoing, first, chunks, headers=headers, whole_s=whole_s)
        made.content_type = JSON
        return made

    @classmethod
    def of(cls, request: web.BaseRequest, response: web.Response, body: bytes, outgoing: Outgoing) -> Self:
        """An answer that was made whole, with a large body, sent like the others."""
        made = cls(request, outgoing, body, _nothing(), status=response.status, headers=response.headers)
        made.content_length = len(body)
        if response.keep_alive is False:
            made.force_close()
        return made

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Begins. What cannot begin is not sent either, and holds nothing."""
        try:
            return await super().prepare(request)
        except BaseException:
            self._outgoing.resize(0)
            await self._rest.aclose()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends all of it. aiohttp calls this when the head is on its way."""
        with self._outgoing:
            async with aclosing(self._rest):
                if self._request.method != hdrs.METH_HEAD:
                    await self._send()
            await super().write_eof(data)

    async def _send(self) -> None:
        try:
            async with asyncio.timeout(self._whole_s):
                await self._send_chunk(self._first)
                self._first = b""
                async for chunk in self._rest:
                    await self._send_chunk(chunk)
        except ConnectionError:
            raise
        except Exception as error:
            logger.warning("an answer was cut off: %s", type(error).__name__)
            raise self._outgoing.cut(self._request) from error

    async def _send_chunk(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        for start in range(0, len(view), PIECE):
            self._outgoing.resize(len(view) - start + PIECE)
            piece = view[start : start + PIECE]
            async with self._outgoing.writing(self._request, len(piece)):
                await self.write(piece)
                # aiohttp waits for the client only now and then.
                await self._request.writer.drain()


async def _nothing() -> AsyncGenerator[bytes]:
    empty: AsyncIterator[bytes]
    for empty in ():
        yield empty
