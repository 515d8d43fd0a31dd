"""The bus: appends envelopes to shards, many appends in one write.

All appends of one turn of the event loop go out in one `transport.write`, and Redis answers them after one
fsync (group commit). So an acknowledged event costs a few µs here, and `appendfsync always` is affordable.

The outcomes of an append:

| when                                                   | outcome                                          |
| ------------------------------------------------------ | ------------------------------------------------ |
| Redis answered                                         | the stream id                                    |
| Redis refused (OOM, LOADING, READONLY, MISCONF, MOVED) | BusUnavailable: not stored                       |
| no connection for `outage_grace`, or the queue is full | BusUnavailable at once: nothing was sent         |
| written, then no answer in time, or connection lost    | NotConfirmed: may be stored, and is not repeated |

The deadline finds a Redis process that hangs while its kernel still accepts bytes: the bus drops the
connection, and everything written on it is not confirmed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import structlog
from hiredis import ReplyError

from homewire._core import XaddPrefixes
from homewire.bus.shards import BusError, BusSettings, BusStats, epoch_key, events_key, once_key
from homewire.errors import BusUnavailable, ConfigurationError, NotConfirmed
from homewire.log import Seldom
from homewire.redis.address import RedisAddress, parse_address
from homewire.redis.connection import PendingReplies, RedisConnection, exchange, open_connection, pack
from homewire.redis.deployment import QUESTION, Identity

MIN_DELAY: Final = 0.05
MAX_DELAY: Final = 1.0
"""Bounds of the pause between two attempts to connect, in seconds."""
DEADLINE_GRAIN: Final = 0.1
"""Seconds between two checks of the deadlines, while replies are pending."""
TRIM_INTERVAL: Final = 1.0
"""Seconds between two appends to a shard that also trim it by age."""
CHECKED_MS: Final = 60_000
"""After a reconnect the bus checks the last confirmed entry if it is younger. An older one is on disk and on
the replicas."""

APPEND_ONCE: Final = Path(__file__).with_name("append_once.lua").read_bytes()
APPEND_ONCE_SHA: Final = hashlib.sha1(APPEND_ONCE, usedforsecurity=False).hexdigest().encode()

Reply: TypeAlias = bytes | int | list[Any] | ReplyError | BusError | None

_log = structlog.get_logger(__name__)


class HandshakeRefused(ConnectionError):
    """Redis answered the first commands with an error, e.g. because it is still loading."""


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


class Bus:
    """Appends envelopes to shards. A process has one, on its event loop. `BusSettings` has its bounds."""

    def __init__(self, settings: BusSettings, identity: Identity | None = None) -> None:
        """Opens no connection. `identity` judges each one. Raises ConfigurationError for an invalid URL."""
        self.stats = BusStats()
        self._identity = identity
        self._settings = settings
        self._address: RedisAddress = parse_address(settings.url)
        self._connection: RedisConnection | None = None
        self._connected_before = False
        self._lost = asyncio.Event()
        self._lost_at = 0.0
        self._closing = False
        self._unsent: deque[PendingAppends] = deque()
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._newest_id = b"0-0"
        self._newest_shard: int | None = None
        self._prefixes = XaddPrefixes(settings.shards)
        self._trim_at = 0.0
        self._seldom = Seldom(1.0)
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether an append would be written at once."""
        return self._connection is not None and self._connection.writable

    @property
    def idempotency_ms(self) -> int:
        """How long an Idempotency-Key is stored."""
        return self._settings.idempotency_ms

    async def start(self) -> None:
        """Connect. Returns after the first attempt; if it failed, the bus tries again in the background.

        Raises ConfigurationError when Redis refuses the credentials.
        """
        self._loop = asyncio.get_running_loop()
        self._lost_at = self._loop.time()
        first_attempt: asyncio.Future[None] = self._loop.create_future()
        self._supervisor = asyncio.create_task(self._stay_connected(first_attempt), name="homewire-bus")
        await asyncio.wait((first_attempt, self._supervisor), return_when=asyncio.FIRST_COMPLETED)
        # If the supervisor ended by itself, this raises its error.
        (self._supervisor if self._supervisor.done() else first_attempt).result()

    async def close(self) -> None:
        """Refuse new appends, wait for pending replies until their deadlines, then disconnect."""
        self._closing = True
        connection = self._connection
        pending = [*self._unsent, *(connection.written if connection else ())]
        if pending:
            await asyncio.wait([batch.waiter for batch in pending])
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._connection is not None:
            self._connection.drop()
        if self._timer is not None:
            self._timer.cancel()

    async def append(self, shard: int, envelope: bytes) -> bytes:
        """Append one envelope. Returns its stream id `<ms>-<seq>` once it is confirmed. Raises BusError."""
        batch = self._submit(self.prefixes.xadd(shard, envelope), 1)
        reply = (await batch.waiter)[0]
        if type(reply) is not bytes:
            raise self._failure(reply)
        self.stats.appended += 1
        self._newest_id, self._newest_shard = reply, shard
        return reply

    async def append_all(self, commands: bytes, count: int, last_shard: int) -> list[bytes | BusError]:
        """Send `count` XADDs, made with `prefixes`. Returns the stream id or the error of each.

        `last_shard` is the shard of the last one.
        """
        try:
            batch = self._submit(commands, count)
        except BusUnavailable as error:
            self.stats.unavailable += count - 1
            return [error] * count
        replies = await batch.waiter
        # Usually all replies are ids. Then nothing is done for each of them.
        if set(map(type, replies)) == {bytes}:
            self.stats.appended += count
            self._newest_id, self._newest_shard = cast(bytes, replies[-1]), last_shard
            return cast(list[bytes | BusError], replies)
        outcomes = [reply if type(reply) is bytes else self._failure(reply) for reply in replies]
        self.stats.appended += sum(type(outcome) is bytes for outcome in outcomes)
        return outcomes

    async def append_once(
        self,
        shard: int,
        scope_key: str,
        fingerprint: str,
        envelopes: Sequence[bytes],
        labels: Sequence[int] | None = None,
    ) -> list[bytes] | None:
        """Append each envelope whose label was not appended with this `scope_key`. Returns all stream ids.

        Record and entries are written in one atomic step, in the slot of the shard. `labels` distinguish the
        envelopes of one scope key (default 0, 1, …): a retry with more labels appends only the new ones.
        Without envelopes only the record is written. Returns None, and appends nothing, if the record of the
        scope key has another `fingerprint`. Raises BusError.
        """
        arguments: list[bytes | str | int] = [2, once_key(shard, scope_key), events_key(shard), fingerprint]
        arguments += (self._settings.idempotency_ms, self._cutoff_ms())
        for label, envelope in zip(labels or range(len(envelopes)), envelopes, strict=True):
            arguments += (label, envelope)
        reply = await self._call(b"EVALSHA", APPEND_ONCE_SHA, arguments)
        if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT"):
            # The script was not executed, so it can be sent again.
            reply = await self._call(b"EVAL", APPEND_ONCE, arguments)
        if reply is None:
            return None
        if not isinstance(reply, list):
            raise self._failure(reply)
        added, *ids = reply
        self.stats.appended += added
        self.stats.duplicates += len(ids) - added
        return ids

    async def _call(self, command: bytes, script: bytes, arguments: Sequence[bytes | str | int]) -> Reply:
        reply: Reply = (await self._submit(pack([command, script, *arguments]), 1).waiter)[0]
        return reply

    # -- the queue --

    def _submit(self, data: bytes, expected: int) -> PendingAppends:
        stats, now = self.stats, self._loop.time()
        full = stats.in_flight_bytes and stats.in_flight_bytes + len(data) > self._settings.in_flight_bytes
        if full or self._closing or self._outage_lasts(now):
            stats.unavailable += 1
            raise BusUnavailable
        deadline = now + self._settings.answer_timeout
        batch = PendingAppends(data, expected, deadline, stats)
        self._unsent.append(batch)
        self._schedule_flush()
        if self._timer is None:
            self._timer = self._loop.call_later(DEADLINE_GRAIN, self._check_deadlines)
        return batch

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._unsent and self._connection is not None and self._connection.writable:
            batches, self._unsent = self._unsent, deque()
            self.stats.flushes += 1
            self.stats.bytes += sum([batch.size for batch in batches])
            self._connection.write(batches)

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
            unsent.popleft().settle(BusUnavailable())
        if unsent or (connection is not None and connection.written):
            self._timer = self._loop.call_later(DEADLINE_GRAIN, self._check_deadlines)

    def _failure(self, reply: Reply) -> BusError:
        """The error for a reply that is no stream id; counts it."""
        if isinstance(reply, NotConfirmed):
            self.stats.not_confirmed += 1
            return reply
        self.stats.unavailable += 1
        if isinstance(reply, BusUnavailable):
            return reply
        self._note_refusal(str(reply))
        return BusUnavailable()

    def _note_refusal(self, text: str) -> None:
        if self._seldom.may("bus.refused"):
            _log.warning("bus.refused", refusal=text)

    # -- age limit --

    @property
    def prefixes(self) -> XaddPrefixes:
        """The prefixes of XADDs for this turn of the event loop; do not store them."""
        now = self._loop.time()
        if now >= self._trim_at:
            self._prefixes.renew(self._cutoff_ms())
            self._trim_at = now + TRIM_INTERVAL
        return self._prefixes

    def _cutoff_ms(self) -> int:
        """The time before which entries are trimmed, by Redis' clock as the newest stream id has it.

        A clock of this node that is a quarter of an hour ahead would trim every event.
        """
        newest_ms = int(self._newest_id.partition(b"-")[0])
        return max(0, newest_ms - self._settings.retention_ms)

    # -- the connection --

    async def _stay_connected(self, first_attempt: asyncio.Future[None]) -> None:
        delay = MIN_DELAY
        while True:
            self._lost.clear()
            try:
                async with asyncio.timeout(self._settings.connect_timeout):
                    connection = await self._connect()
            except ConfigurationError as error:
                if not first_attempt.done():
                    raise
                _log.warning("bus.credentials_refused", error=str(error))
            except OSError as error:
                _log.debug("bus.connect_failed", error=str(error))
            else:
                connected_at = self._loop.time()
                self._adopt(connection)
                _resolve(first_attempt)
                await self._lost.wait()
                if self._loop.time() - connected_at >= MAX_DELAY:
                    delay = MIN_DELAY
            _resolve(first_attempt)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads reconnects, no secret
            delay = min(2 * delay, MAX_DELAY)

    async def _connect(self) -> RedisConnection:
        """A connection that knows the script, to a server that is done loading."""
        connection = await open_connection(
            self._address, lambda: RedisConnection(NotConfirmed, self._on_event)
        )
        try:
            await self._shake_hands(connection)
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _shake_hands(self, connection: RedisConnection) -> None:
        if self._identity is not None:
            (reply,) = await exchange(connection, QUESTION)
            if problem := self._identity.admit(reply):
                raise HandshakeRefused(problem)
        replies = await exchange(
            connection, ("CLIENT", "SETNAME", "homewire-bus"), ("SCRIPT", "LOAD", APPEND_ONCE), ("TIME",)
        )
        _raise_refusal(replies)
        seconds, microseconds = replies[-1]
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        await self._check_newest(connection, now_ms)
        self._newest_id, self._newest_shard = b"%d-0" % now_ms, None

    async def _check_newest(self, connection: RedisConnection, now_ms: int) -> None:
        """Check that Redis still has the entry that it confirmed last; otherwise renew all epochs.

        A server that lost data lost its newest entries first. Stream readers notice a loss by their counts,
        except for entries that none of them had read. Only the node that got the confirmation knows of those.
        New epochs tell all readers.
        """
        shard, newest = self._newest_shard, self._newest_id
        if shard is None or int(newest.partition(b"-")[0]) < now_ms - CHECKED_MS:
            return
        key = events_key(shard)
        up_to_newest, information = await exchange(
            connection, ("XREVRANGE", key, newest, "-", "COUNT", 1), ("XINFO", "STREAM", key)
        )
        _raise_refusal([up_to_newest])
        if still_has(newest, up_to_newest, information):
            return
        _log.error("bus.history_lost", shard=shard, newest_confirmed=newest.decode())
        shards = range(self._settings.shards)
        renewals = [("SET", epoch_key(number), secrets.token_hex(8)) for number in shards]
        _raise_refusal(await exchange(connection, *renewals))

    def _adopt(self, connection: RedisConnection) -> None:
        if connection.lost:  # since the last reply
            self._lost.set()
            return
        if self._connected_before:
            self.stats.reconnects += 1
            _log.info("bus.reconnected", after_s=round(self._loop.time() - self._lost_at, 3))
        self._connected_before = True
        self._connection = connection
        self._trim_at = 0.0
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
            _log.warning("bus.disconnected")


def _raise_refusal(replies: Sequence[Reply]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise HandshakeRefused(str(reply))


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def still_has(newest: bytes, up_to_newest: object, information: object) -> bool:
    """Whether a stream still has the entry `newest`, or has trimmed it. False: it was lost.

    `up_to_newest` is the reply to XREVRANGE from this entry down, `information` the one to XINFO STREAM.
    Trimming removes older entries first. So an older entry without this one means that this one was lost.
    """
    if isinstance(up_to_newest, list) and up_to_newest:
        return bool(up_to_newest[0][0] == newest)
    if not isinstance(information, list):
        return False  # The stream does not exist.
    last: bytes = dict(zip(information[::2], information[1::2], strict=True))[b"last-generated-id"]
    return _id_order(last) >= _id_order(newest)


def _id_order(stream_id: bytes) -> tuple[int, int]:
    ms, _, seq = stream_id.partition(b"-")
    return int(ms), int(seq)
