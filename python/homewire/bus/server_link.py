"""The bus's connection to one server: appends wait for the next write, and each has a deadline.

All appends of one turn of the event loop go out in one `transport.write`, and Redis answers them after one
fsync (group commit). The deadline finds a Redis process that hangs while its kernel still accepts bytes: the
connection is dropped, and everything written on it is not confirmed.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from homewire.bus.shards import BusSettings, BusStats
from homewire.errors import BusUnavailable, ConfigurationError, NotConfirmed
from homewire.redis.connection import PendingReplies, RedisConnection
from homewire.redis.replicas import ReplicatedWrite
from homewire.redis.servers import Server, Servers

MIN_DELAY: Final = 0.05
MAX_DELAY: Final = 1.0
"""Bounds of the pause between two attempts to connect, in seconds."""
DEADLINE_GRAIN: Final = 0.1
"""Seconds between two checks of the deadlines, while replies are pending."""

_log = structlog.get_logger(__name__)


class PendingAppends(PendingReplies):
    """The appends of one caller. Their bytes count as in flight until they are settled."""

    __slots__ = ("_stats", "size")

    def __init__(self, data: bytes, expected: int, deadline: float, stats: BusStats) -> None:
        """`deadline` is the loop time until which Redis must answer."""
        super().__init__(data, expected, deadline)
        self.size = len(data)
        self._stats = stats
        stats.in_flight_bytes += self.size

    def settle(self, failure: Exception | None = None) -> None:
        """Wake the caller; commands without a reply get `failure`."""
        self._stats.in_flight_bytes -= self.size
        super().settle(failure)


class ServerLink:
    """A connection that is made again when it is lost, and the appends that wait for it."""

    def __init__(
        self,
        servers: Servers,
        server: Server,
        settings: BusSettings,
        stats: BusStats,
        shake_hands: Callable[[ServerLink, RedisConnection], Awaitable[None]],
    ) -> None:
        """`shake_hands` prepares each new connection before it is used. Raises OSError to refuse it."""
        self.server: Final = server
        self._servers = servers
        self._settings = settings
        self._stats = stats
        self._shake_hands = shake_hands
        self._loop = asyncio.get_running_loop()
        self._connection: RedisConnection | None = None
        self._connected_before = False
        self._lost = asyncio.Event()
        self._lost_at = self._loop.time()
        self._closing = False
        self._unsent: deque[PendingAppends] = deque()
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._first_attempt: asyncio.Future[None] = self._loop.create_future()
        self._supervisor = asyncio.create_task(self._stay_connected(), name="homewire-bus")

    @property
    def connected(self) -> bool:
        """Whether an append would be written at once."""
        return self._connection is not None and self._connection.writable

    @property
    def connection(self) -> RedisConnection | None:
        """The connection, if there is one."""
        return self._connection

    async def first_attempt(self) -> None:
        """Wait for the first attempt to connect. Raises ConfigurationError when Redis refuses the
        credentials."""
        await asyncio.wait((self._first_attempt, self._supervisor), return_when=asyncio.FIRST_COMPLETED)
        # If the supervisor ended by itself, this raises its error.
        (self._supervisor if self._supervisor.done() else self._first_attempt).result()

    def submit(self, data: bytes, expected: int) -> PendingAppends:
        """Send commands with the next write. Raises BusUnavailable, with nothing sent."""
        stats, now = self._stats, self._loop.time()
        full = stats.in_flight_bytes and stats.in_flight_bytes + len(data) > self._settings.in_flight_bytes
        if full or self._closing or self._outage_lasts(now):
            stats.unavailable += expected
            raise BusUnavailable
        deadline = now + self._settings.answer_timeout
        batch = PendingAppends(data, expected, deadline, stats)
        self._unsent.append(batch)
        self._schedule_flush()
        if self._timer is None:
            self._timer = self._loop.call_later(DEADLINE_GRAIN, self._check_deadlines)
        return batch

    async def close(self) -> None:
        """Refuse new appends, wait for pending replies until their deadlines, then disconnect."""
        self._closing = True
        connection = self._connection
        pending = [*self._unsent, *(connection.written if connection else ())]
        if pending:
            await asyncio.wait([batch.waiter for batch in pending])
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._connection is not None:
            self._connection.drop()
        if self._timer is not None:
            self._timer.cancel()

    # -- the queue --

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._unsent and self._connection is not None and self._connection.writable:
            batches, self._unsent = self._unsent, deque()
            self._stats.flushes += 1
            self._stats.bytes += sum([batch.size for batch in batches])
            replicas = self._servers.ack_replicas
            self._connection.write(
                [ReplicatedWrite(tuple(batches), replicas, NotConfirmed)] if replicas else batches
            )

    def _outage_lasts(self, now: float) -> bool:
        return self._connection is None and now - self._lost_at > self._settings.outage_grace

    def _check_deadlines(self) -> None:
        self._timer = None
        now, unsent, connection = self._loop.time(), self._unsent, self._connection
        if connection is not None and connection.written and connection.written[0].deadline <= now:
            _log.warning("bus.hung", unanswered_s=self._settings.answer_timeout)
            connection.drop()
            connection = None
        while unsent and (unsent[0].deadline <= now or self._outage_lasts(now)):
            self._stats.unavailable += unsent[0].expected
            unsent.popleft().settle(BusUnavailable())
        if unsent or (connection is not None and connection.written):
            self._timer = self._loop.call_later(DEADLINE_GRAIN, self._check_deadlines)

    # -- the connection --

    async def _stay_connected(self) -> None:
        delay = MIN_DELAY
        while True:
            self._lost.clear()
            try:
                async with asyncio.timeout(self._settings.connect_timeout):
                    connection = await self._connect()
            except ConfigurationError as error:
                if not self._first_attempt.done():
                    raise
                _log.warning("bus.credentials_refused", error=str(error))
            except OSError as error:
                _log.debug("bus.connect_failed", error=str(error))
            else:
                connected_at = self._loop.time()
                self._adopt(connection)
                _resolve(self._first_attempt)
                await self._lost.wait()
                if self._loop.time() - connected_at >= MAX_DELAY:
                    delay = MIN_DELAY
            _resolve(self._first_attempt)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads reconnects, no secret
            delay = min(2 * delay, MAX_DELAY)

    async def _connect(self) -> RedisConnection:
        connection = await self._servers.open(
            self.server, lambda: RedisConnection(NotConfirmed, self._on_event)
        )
        try:
            await self._shake_hands(self, connection)
        except BaseException:
            connection.drop()
            raise
        return connection

    def _adopt(self, connection: RedisConnection) -> None:
        if connection.lost:  # since the last reply
            self._lost.set()
            return
        if self._connected_before:
            self._stats.reconnects += 1
            _log.info("bus.reconnected", after_s=round(self._loop.time() - self._lost_at, 3))
        self._connected_before = True
        self._connection = connection
        self._flush()

    def _on_event(self, connection: RedisConnection) -> None:
        if connection is not self._connection:
            return
        if not connection.lost:
            self._schedule_flush()
            return
        self._connection = None
        self._lost_at = self._loop.time()
        self._lost.set()
        if not self._closing:
            self._servers.refresh_soon()
            _log.warning("bus.disconnected")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
