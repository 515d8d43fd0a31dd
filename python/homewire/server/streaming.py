"""Budget of the responses that clients have not read, and responses streamed within it.

What a client does not take stays in memory, and a client may take nothing for as long as it likes. So an
answer counts from when it is made until the client took it: in a sum for the node, and in a share for its
principal (without a key: its address) and its project. An answer waits for its client only as long as the
pace allows: a client that takes nothing, or drips, is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from homewire.auth.models import Principal
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import Unavailable
from homewire.server.clients import client_address

KIBIBYTE: Final = 1024
MEBIBYTE: Final = 1024 * KIBIBYTE
PIECE: Final = 64 * KIBIBYTE
"""As much as may wait in each connection's own buffer. An answer that is no larger is not counted."""
OWNERS: Final = web.RequestKey("owners", tuple)
"""Whom the answer to a request is counted for."""

Owners = tuple[Hashable, ...]
"""The principal, or the address of a request without a key; then the project, if there is a key."""


def owners_of(caller: Principal | None, request: web.BaseRequest) -> Owners:
    """Whom an answer to this caller is counted for."""
    if caller is None:
        return (client_address(request),)
    return (caller.kind, caller.id, caller.project_id), caller.project_id


class AnswersFull(Unavailable):
    """So many bytes of answers wait for their clients already."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an answer has to be taken."""

    stall_s: float = 30.0
    """How long a client may take nothing."""
    bytes_per_s: int = 4 * KIBIBYTE
    """The lowest rate: each of these bytes gives a client a second more."""


@dataclass(slots=True)
class Answers:
    """The sum over all requests, at most `limit` bytes, and at most `share` for one principal; half of the
    limit for one project. Used from the event loop alone."""

    limit: int = 64 * MEBIBYTE
    share: int = 8 * MEBIBYTE
    pace: Pace = field(default_factory=Pace)
    clock: Clock = MACHINE_CLOCK
    _held: int = 0
    _by_owner: dict[Hashable, int] = field(default_factory=dict)
    _refused: int = 0
    _cut: int = 0

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {
            "response_bytes": self._held,
            "responses_refused": self._refused,
            "responses_aborted": self._cut,
        }

    def admit(self, owners: Owners, size: int) -> Outgoing:
        """Count an answer of `size` bytes. Raises AnswersFull where there is no room; an owner of whom
        nothing is held has room for one answer, however large."""
        limits = (("response_bytes_per_principal", self.share), ("response_bytes", self.limit // 2))
        for owner, (setting, limit) in zip(owners, limits, strict=False):
            held = self._by_owner.get(owner, 0)
            if held and held + size > limit:
                self._refuse(setting)
        if self._held and self._held + size > self.limit:
            self._refuse("response_bytes")
        return self.count(owners, size)

    def count(self, owners: Owners, size: int) -> Outgoing:
        """The same for an answer that cannot be refused: what it tells of has happened."""
        outgoing = Outgoing(self, owners)
        outgoing.resize(size)
        return outgoing

    def add(self, owners: Owners, more: int) -> None:
        """An answer of theirs holds more, or less."""
        self._held += more
        for owner in owners:
            held = self._by_owner.get(owner, 0) + more
            if held:
                self._by_owner[owner] = held
            else:
                del self._by_owner[owner]

    def cut(self, request: web.BaseRequest) -> ConnectionResetError:
        """End the connection, for a client that does not take its answer; what to raise then."""
        self._cut += 1
        if request.transport is not None:
            # Closing would wait until the client has taken what is in the buffer.
            request.transport.abort()
        return ConnectionResetError("the client did not take its answer in time")

    def _refuse(self, setting: str) -> None:
        self._refused += 1
        raise AnswersFull(limit=setting)


class Outgoing:
    """An answer on its way: what it holds, and how long it waited for its client. A context manager: at its
    end it holds nothing."""

    __slots__ = ("_answers", "_owners", "_size", "_taken", "_waited")

    def __init__(self, answers: Answers, owners: Owners) -> None:
        self._answers = answers
        self._owners = owners
        self._size = 0
        self._taken = 0
        self._waited = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resize(0)

    def resize(self, size: int) -> None:
        """It holds so many bytes now."""
        if more := size - self._size:
            self._answers.add(self._owners, more)
            self._size = size

    def cut(self, request: web.BaseRequest) -> ConnectionResetError:
        """See `Answers.cut`."""
        return self._answers.cut(request)

    @asynccontextmanager
    async def writing(self, request: web.BaseRequest, size: int) -> AsyncIterator[None]:
        """What is done here writes `size` bytes, and waits until the client took what lies before them.

        Raises ConnectionResetError, and ends the connection, when the pace does not allow so much waiting.
        What was waited before counts: a client that takes a little now and then gains nothing by it.
        """
        pace, now = self._answers.pace, self._answers.clock.monotonic
        needed = size / pace.bytes_per_s
        allowed = pace.stall_s + self._taken / pace.bytes_per_s + needed - self._waited
        began = now()
        try:
            async with asyncio.timeout(min(allowed, max(pace.stall_s, needed))):
                yield
        except TimeoutError:
            raise self._answers.cut(request) from None
        self._waited += now() - began
        self._taken += size


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
        like any other error, and AnswersFull. Empty chunks are skipped; one must not be empty."""
        first = b""
        while not first:
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
