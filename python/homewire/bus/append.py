"""The hot-path writer: many appends, one write.

Whatever is appended in one turn of the event loop goes out in one `transport.write`; Redis answers
the lot after one fsync. That is the whole of "group commit", and why an acknowledged event costs a
few µs here and `appendfsync always` is affordable.

What an append can end in:

| when                                                  | outcome                                    |
| ----------------------------------------------------- | ------------------------------------------ |
| Redis answered                                        | the stream id                              |
| Redis refused (OOM, LOADING, READONLY, MISCONF, MOVED)| BusUnavailable: certainly not stored       |
| no connection for `outage_grace`, or the queue is full| BusUnavailable, at once: nothing was sent  |
| written, then no answer in time or connection lost    | NotConfirmed: nobody knows; never repeated |

A hung Redis (its kernel still accepts) is found by the deadline: the connection is dropped and with
it everything written on it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Sequence
from typing import cast

import structlog
from hiredis import ReplyError

from homewire._core import XaddPrefixes
from homewire.bus import wire
from homewire.bus.shards import BusError, BusSettings, BusStats, epoch_key, events_key
from homewire.bus.wire import Batch, Reply
from homewire.errors import BusUnavailable, ConfigurationError, NotConfirmed
from homewire.log import Seldom
from homewire.redis.connection import RedisAddress, RedisConnection, exchange, open_connection, parse_address

FIRST_DELAY, LONGEST_DELAY = 0.05, 1.0
DEADLINE_GRAIN = 0.1
"""Seconds between two looks at the deadlines, while anything is pending."""
TRIM_INTERVAL = 1.0
"""Seconds between two appends of a shard that also trim it by age."""
NEWEST_KEPT_MS = 60_000
"""What was confirmed longer ago is on disk, and on every replica that is worth the name."""
TURN_AWAY = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH")
"""Refusals by which a Redis says that it is the wrong one to write to, now."""

_log = structlog.get_logger(__name__)


class HandshakeRefused(ConnectionError):
    """Redis answered the opening commands with an error; it may be loading still."""


class Bus:
    """Appends envelopes to shards. One per process and event loop; see `BusSettings` for the bounds."""

    def __init__(self, settings: BusSettings) -> None:
        """Nothing is opened yet. Raises ConfigurationError for a URL that cannot be."""
        self.stats = BusStats()
        self._settings = settings
        self._address: RedisAddress = parse_address(settings.url)
        self._connection: RedisConnection | None = None
        self._connected_before = False
        self._lost = asyncio.Event()
        self._lost_at = 0.0
        self._closing = False
        self._unsent: deque[Batch] = deque()
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
        """Whether an append would be written now."""
        return self._connection is not None and self._connection.writable

    @property
    def idempotency_ms(self) -> int:
        """How long an Idempotency-Key is remembered."""
        return self._settings.idempotency_ms

    async def start(self) -> None:
        """Connect. Returns after the first attempt, also when that failed: the bus goes on trying.

        Raises ConfigurationError when Redis refuses the credentials.
        """
        self._loop = asyncio.get_running_loop()
        self._lost_at = self._loop.time()
        first_attempt: asyncio.Future[None] = self._loop.create_future()
        self._supervisor = asyncio.create_task(self._stay_connected(first_attempt), name="homewire-bus")
        await asyncio.wait((first_attempt, self._supervisor), return_when=asyncio.FIRST_COMPLETED)
        # A supervisor that ended by itself has a bug to tell about.
        (self._supervisor if self._supervisor.done() else first_attempt).result()

    async def close(self) -> None:
        """Refuse new appends, wait for the answers to those under way, disconnect. Deadlines bound it."""
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
        """Append one envelope; its stream id `<ms>-<seq>`, after Redis said yes. Raises BusError."""
        batch = self._submit(self.prefixes.xadd(shard, envelope), 1)
        reply = (await batch.waiter)[0]
        if type(reply) is not bytes:
            raise self._failure(reply)
        self.stats.appended += 1
        self._newest_id, self._newest_shard = reply, shard
        return reply

    async def append_all(self, commands: bytes, count: int, last_shard: int) -> list[bytes | BusError]:
        """Send `count` XADDs, made with `prefixes`; for each its stream id, or why it has none.

        `last_shard` is the shard of the last of them.
        """
        try:
            batch = self._submit(commands, count)
        except BusUnavailable as error:
            self.stats.unavailable += count - 1
            return [error] * count
        replies = await batch.waiter
        # Nearly always all are ids, and nothing is done for each.
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
        """Append each envelope unless this `scope_key` has appended its label before; their stream ids.

        Record and append are one atomic step in the shard's slot. `labels` tell the envelopes of one
        scope key apart (default 0, 1, …): a retry with more labels appends only the new ones. None: the
        scope key stands for another `fingerprint`; nothing was appended. No envelopes: only the claim.
        Raises BusError.
        """
        labelled = list(zip(labels or range(len(envelopes)), envelopes, strict=True))
        reply = await self._call_script(shard, scope_key, fingerprint, labelled, whole_script=False)
        if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT"):
            # Certainly not executed, so sending it again repeats nothing.
            reply = await self._call_script(shard, scope_key, fingerprint, labelled, whole_script=True)
        if reply is None:
            return None
        if not isinstance(reply, list):
            raise self._failure(reply)
        added, *ids = reply
        self.stats.appended += added
        self.stats.duplicates += len(ids) - added
        return ids

    async def _call_script(
        self,
        shard: int,
        scope_key: str,
        fingerprint: str,
        labelled: Sequence[tuple[int, bytes]],
        *,
        whole_script: bool,
    ) -> Reply:
        data = wire.append_once(
            shard,
            scope_key,
            fingerprint,
            labelled,
            ttl_ms=self._settings.idempotency_ms,
            cutoff_ms=self._cutoff_ms(),
            whole_script=whole_script,
        )
        reply: Reply = (await self._submit(data, 1).waiter)[0]
        return reply

    # -- the queue --

    def _submit(self, data: bytes, expected: int) -> Batch:
        stats, now = self.stats, self._loop.time()
        full = stats.in_flight_bytes and stats.in_flight_bytes + len(data) > self._settings.in_flight_bytes
        if full or self._closing or self._outage_lasts(now):
            stats.unavailable += 1
            raise BusUnavailable
        deadline = now + self._settings.answer_timeout
        batch = Batch(data, expected, deadline, stats)
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
        """The error that one reply stands for, counted."""
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
        if text.startswith(TURN_AWAY) and self._connection is not None:
            self._connection.retire()

    # -- age limit --

    @property
    def prefixes(self) -> XaddPrefixes:
        """What XADDs are to be made with now; not for keeping."""
        now = self._loop.time()
        if now >= self._trim_at:
            self._prefixes.renew(self._cutoff_ms())
            self._trim_at = now + TRIM_INTERVAL
        return self._prefixes

    def _cutoff_ms(self) -> int:
        """By Redis' own clock, read from its newest id: with ours, a clock that is a quarter of an hour
        ahead would trim every event as it is stored."""
        newest_ms = int(self._newest_id.partition(b"-")[0])
        return max(0, newest_ms - self._settings.retention_ms)

    # -- the connection --

    async def _stay_connected(self, first_attempt: asyncio.Future[None]) -> None:
        delay = FIRST_DELAY
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
                if self._loop.time() - connected_at >= LONGEST_DELAY:
                    delay = FIRST_DELAY
            _resolve(first_attempt)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads reconnects, no secret
            delay = min(2 * delay, LONGEST_DELAY)

    async def _connect(self) -> RedisConnection:
        """A connection that has authenticated, knows the script and is done loading."""
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
        authentication = self._address.authentication
        if authentication:
            (reply,) = await exchange(connection, authentication)
            if isinstance(reply, ReplyError):
                raise ConfigurationError(f"Redis refused the credentials of the URL: {reply}")
        replies = await exchange(
            connection, ("CLIENT", "SETNAME", "homewire-bus"), ("SCRIPT", "LOAD", wire.APPEND_ONCE), ("TIME",)
        )
        _raise_refusal(replies)
        seconds, microseconds = replies[-1]
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        await self._check_newest(connection, now_ms)
        self._newest_id, self._newest_shard = b"%d-0" % now_ms, None

    async def _check_newest(self, connection: RedisConnection, now_ms: int) -> None:
        """Does Redis still have what it confirmed last? One that fell back lost that before all else.

        Readers find most of that by their counts, but an event that none of them had read leaves no
        trace: only who acknowledged it knows that there was one. New epochs tell all of them.
        """
        shard, newest = self._newest_shard, self._newest_id
        if shard is None or int(newest.partition(b"-")[0]) < now_ms - NEWEST_KEPT_MS:
            return
        key = events_key(shard)
        up_to_newest, information = await exchange(
            connection, ("XREVRANGE", key, newest, "-", "COUNT", 1), ("XINFO", "STREAM", key)
        )
        _raise_refusal([up_to_newest])
        if wire.still_has(newest, up_to_newest, information):
            return
        _log.error("bus.history_lost", shard=shard, newest_confirmed=newest.decode())
        shards = range(self._settings.shards)
        renewals = [("SET", epoch_key(number), secrets.token_hex(8)) for number in shards]
        _raise_refusal(await exchange(connection, *renewals))

    def _adopt(self, connection: RedisConnection) -> None:
        if connection.lost:  # between the last reply and now
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
