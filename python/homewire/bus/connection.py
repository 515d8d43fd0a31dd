"""One connection to Redis: commands out in one write, replies matched to their callers in order."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, TypeAlias, cast

from hiredis import HiredisError, Reader, ReplyError

from homewire.bus.address import RedisAddress
from homewire.bus.settings import BusError, BusStats
from homewire.errors import NotConfirmed

Reply: TypeAlias = bytes | int | list[Any] | ReplyError | BusError | None

WRITE_BUFFER_BYTES = 1024 * 1024
"""Beyond this a Redis that does not read keeps batches in our queue, where they are certainly unsent."""


class Batch:
    """The commands of one caller. `waiter` gets the list of `replies`, one for each command, never
    an exception: one object and one wake-up however many commands there are."""

    __slots__ = ("data", "deadline", "expected", "replies", "size", "waiter")

    def __init__(
        self, data: bytes, expected: int, deadline: float, waiter: asyncio.Future[list[Reply]]
    ) -> None:
        self.data = data
        self.size = len(data)
        self.expected = expected
        self.deadline = deadline
        """Loop time by which Redis must have answered."""
        self.waiter = waiter
        self.replies: list[Reply] = []

    def settle(self, stats: BusStats, failure: BusError | None = None) -> None:
        """Wake the caller; commands without a reply get `failure`. A caller that went away is fine."""
        stats.in_flight_bytes -= self.size
        if failure is not None:
            self.replies.extend([failure] * (self.expected - len(self.replies)))
        if not self.waiter.done():
            self.waiter.set_result(self.replies)


class Connection(asyncio.Protocol):
    """A hiredis reader on a transport. `on_event` is called when it may be written to again and when
    it is gone; what of the two, `writable` and `lost` tell."""

    def __init__(self, stats: BusStats, on_event: Callable[[Connection], None]) -> None:
        self.written: deque[Batch] = deque()
        self.lost = False
        self._stats = stats
        self._on_event = on_event
        self._reader = Reader()
        self._paused = False
        self._retired = False
        self._transport: asyncio.Transport | None = None

    @property
    def writable(self) -> bool:
        """Whether a write now would go out, not just pile up."""
        return not (self._paused or self._retired or self.lost)

    def write(self, batches: Collection[Batch]) -> None:
        """Send all commands of `batches` in one write."""
        assert self._transport is not None
        data = b"".join([batch.data for batch in batches])
        for batch in batches:
            batch.data = b""  # the transport has its own copy; hold one, not two, until the reply
        self.written.extend(batches)
        self._stats.flushes += 1
        self._stats.bytes += len(data)
        self._transport.write(data)

    def retire(self) -> None:
        """Write no more, and close once all replies are in: this Redis refuses writes (it is now a
        replica, or loading), the next connection may reach one that does not."""
        self._retired = True
        if not self.written:
            self.drop()

    def drop(self) -> None:
        """Give the connection up now. What was written and not answered is not confirmed."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, no isinstance: uvloop's transports are not asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        reader, written = self._reader, self.written
        try:
            reader.feed(data)
            # RESP2 has no booleans: False can only mean "no whole reply yet".
            while (reply := reader.gets()) is not False:
                replies = written[0].replies
                replies.append(reply)
                if len(replies) == written[0].expected:
                    written.popleft().settle(self._stats)
        except (HiredisError, IndexError):  # not Redis, or a reply that nobody asked for
            self.drop()
        if self._retired and not written:
            self.drop()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._on_event(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _end(self) -> None:
        if self.lost:
            return
        self.lost = True
        while self.written:
            self.written.popleft().settle(self._stats, NotConfirmed())
        self._on_event(self)


async def open_connection(
    address: RedisAddress, stats: BusStats, on_event: Callable[[Connection], None]
) -> Connection:
    """Connect, without a word yet. Raises OSError (ssl.SSLError is one)."""
    loop = asyncio.get_running_loop()

    def factory() -> Connection:
        return Connection(stats, on_event)

    if address.path:
        _, connection = await loop.create_unix_connection(factory, address.path)
    else:
        _, connection = await loop.create_connection(factory, address.host, address.port, ssl=address.tls)
    return connection
