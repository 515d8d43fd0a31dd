"""The budget of answers that clients have not read, and answers that are streamed within it.

An answer stays in memory until the client has read it. So it counts from its creation until then, against a
limit of the node, one of its principal (without a key: of its address), and one of its project. A client must
read an answer at a minimum pace; otherwise its connection is closed.
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
"""The size of the buffer of each connection. An answer that is not larger does not count."""
OWNERS: Final = web.RequestKey("owners", tuple)
"""The owners of the answer to a request."""

Owners = tuple[Hashable, ...]
"""For what an answer counts: its principal and its project, or the address of a request without a key."""


def owners_of(caller: Principal | None, request: web.BaseRequest) -> Owners:
    """The owners of an answer to this caller."""
    if caller is None:
        return (client_address(request),)
    return (caller.kind, caller.id, caller.project_id), caller.project_id


class ResponseBudgetFull(Unavailable):
    """The budget of unread answers is used up."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a client must read its answer."""

    stall_s: float = 30.0
    """How long a client may read nothing."""
    bytes_per_s: int = 4 * KIBIBYTE
    """The minimum rate: a client may take one second more for each so many bytes."""


@dataclass(slots=True)
class ResponseBudget:
    """The unread answers of a node: at most `limit` bytes, `share` for one principal, and half of the limit
    for one project. Used from the event loop alone."""

    limit: int = 64 * MEBIBYTE
    share: int = 8 * MEBIBYTE
    pace: Pace = field(default_factory=Pace)
    clock: Clock = MACHINE_CLOCK
    _held: int = 0
    _by_owner: dict[Hashable, int] = field(default_factory=dict)
    _refused: int = 0
    _aborted: int = 0

    def metrics(self) -> Mapping[str, int]:
        """Values of `metrics.GAUGES` and `metrics.COUNTERS`."""
        return {
            "response_bytes": self._held,
            "responses_refused": self._refused,
            "responses_aborted": self._aborted,
        }

    def admit(self, owners: Owners, size: int) -> UnreadResponse:
        """Count an answer of `size` bytes. An owner without unread answers may have one answer of any size.

        Raises ResponseBudgetFull beyond a limit.
        """
        limits = (("response_bytes_per_principal", self.share), ("response_bytes", self.limit // 2))
        for owner, (setting, limit) in zip(owners, limits, strict=False):
            held = self._by_owner.get(owner, 0)
            if held and held + size > limit:
                self._refuse(setting)
        if self._held and self._held + size > self.limit:
            self._refuse("response_bytes")
        return self.count(owners, size)

    def count(self, owners: Owners, size: int) -> UnreadResponse:
        """Count an answer that cannot be refused, because its request was executed."""
        unread = UnreadResponse(self, owners)
        unread.resize(size)
        return unread

    def add(self, owners: Owners, more: int) -> None:
        """Change the bytes of these owners by `more`, which may be negative."""
        self._held += more
        for owner in owners:
            held = self._by_owner.get(owner, 0) + more
            if held:
                self._by_owner[owner] = held
            else:
                del self._by_owner[owner]

    def abort(self, request: web.BaseRequest) -> ConnectionResetError:
        """Close the connection of a client that does not read its answer. Returns the error to raise."""
        self._aborted += 1
        if request.transport is not None:
            # `close` would wait until the client has read the buffer.
            request.transport.abort()
        return ConnectionResetError("the client did not read its answer in time")

    def _refuse(self, setting: str) -> None:
        self._refused += 1
        raise ResponseBudgetFull(limit=setting)


class UnreadResponse:
    """An answer that is being sent: its bytes in memory, and how long it waited for the client.

    As a context manager it releases the bytes at the end.
    """

    __slots__ = ("_budget", "_owners", "_size", "_taken", "_waited")

    def __init__(self, budget: ResponseBudget, owners: Owners) -> None:
        self._budget = budget
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
        """The answer has `size` bytes in memory now."""
        if more := size - self._size:
            self._budget.add(self._owners, more)
            self._size = size

    def abort(self, request: web.BaseRequest) -> ConnectionResetError:
        """See `ResponseBudget.abort`."""
        return self._budget.abort(request)

    @asynccontextmanager
    async def writing(self, request: web.BaseRequest, size: int) -> AsyncIterator[None]:
        """A block that writes `size` bytes, and waits until the client has read the bytes before them.

        Raises ConnectionResetError, and closes the connection, when the client is slower than the pace. The
        waits for all parts of the answer count together, so that a client gains nothing by reading a little
        now and then.
        """
        pace, now = self._budget.pace, self._budget.clock.monotonic
        needed = size / pace.bytes_per_s
        allowed = pace.stall_s + self._taken / pace.bytes_per_s + needed - self._waited
        began = now()
        try:
            async with asyncio.timeout(min(allowed, max(pace.stall_s, needed))):
                yield
        except TimeoutError:
            raise self._budget.abort(request) from None
        self._waited += now() - began
        self._taken += size


logger = logging.getLogger(__name__)

JSON: Final = "application/json"


class StreamedResponse(web.StreamResponse):
    """An answer whose body are the chunks of a generator.

    After the head was sent there is no other way to report an error than to close the connection. So the
    client notices that the body is incomplete. The same happens if the client reads more slowly than the
    pace, or not within `whole_s`, if that is given.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        unread: UnreadResponse,
        first: bytes,
        rest: AsyncGenerator[bytes],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        whole_s: float | None = None,
    ) -> None:
        super().__init__(status=status, headers=headers)
        self._request = request
        self._unread = unread
        self._first = first
        self._rest = rest
        self._whole_s = whole_s

    @classmethod
    async def begun(
        cls,
        request: web.Request,
        chunks: AsyncGenerator[bytes],
        budget: ResponseBudget,
        owners: Owners,
        *,
        headers: Mapping[str, str] | None = None,
        whole_s: float | None = None,
    ) -> Self:
        """Make the first chunk of an answer in JSON, without empty ones; one chunk must not be empty.

        Raises the error of `chunks`, which can still be answered, and ResponseBudgetFull.
        """
        first = b""
        while not first:
            first = await anext(chunks)
        try:
            unread = budget.admit(owners, len(first) + PIECE)
        except BaseException:
            await chunks.aclose()
            raise
        made = cls(request, unread, first, chunks, headers=headers, whole_s=whole_s)
        made.content_type = JSON
        return made

    @classmethod
    def of(
        cls, request: web.BaseRequest, response: web.Response, body: bytes, unread: UnreadResponse
    ) -> Self:
        """Stream a complete answer with a large body."""
        made = cls(request, unread, body, _nothing(), status=response.status, headers=response.headers)
        made.content_length = len(body)
        if response.keep_alive is False:
            made.force_close()
        return made

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head. If that fails, nothing more is sent, and the bytes are released."""
        try:
            return await super().prepare(request)
        except BaseException:
            self._unread.resize(0)
            await self._rest.aclose()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body. aiohttp calls this after the head."""
        with self._unread:
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
            logger.warning("an answer was aborted: %s", type(error).__name__)
            raise self._unread.abort(self._request) from error

    async def _send_chunk(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        for start in range(0, len(view), PIECE):
            self._unread.resize(len(view) - start + PIECE)
            piece = view[start : start + PIECE]
            async with self._unread.writing(self._request, len(piece)):
                await self.write(piece)
                # `write` does not wait for the client each time.
                await self._request.writer.drain()


async def _nothing() -> AsyncGenerator[bytes]:
    empty: AsyncIterator[bytes]
    for empty in ():
        yield empty
