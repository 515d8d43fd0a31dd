"""The bus: appends envelopes to shards, many appends in one write.

An acknowledged event costs a few µs here, and `appendfsync always` is affordable (`bus/server_link.py`). On a
Redis Cluster there is one link for each master, and an append goes to the one that serves its shard's slot.

The outcomes of an append:

| when                                                   | outcome                                          |
| ------------------------------------------------------ | ------------------------------------------------ |
| Redis answered                                         | the stream id                                    |
| MOVED, ASK, TRYAGAIN, CLUSTERDOWN: not executed        | sent again, as long as an outage is waited for   |
| Redis refused (OOM, LOADING, READONLY, MISCONF)        | BusUnavailable: not stored                       |
| no connection for `outage_grace`, or the queue is full | BusUnavailable at once: nothing was sent         |
| written, then no answer in time, or connection lost    | NotConfirmed: may be stored, and is not repeated |
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, cast

import structlog

from homewire._core import XaddPrefixes
from homewire.bus.server_link import PendingAppends, ServerLink
from homewire.bus.shards import BusError, BusSettings, BusStats, epoch_key, events_key, once_key
from homewire.errors import BusUnavailable, NotConfirmed
from homewire.log import Seldom
from homewire.redis.address import parse_address
from homewire.redis.cluster import Redirect, is_failing_over, slot_of
from homewire.redis.connection import PendingReplies, RedisConnection, exchange, pack
from homewire.redis.servers import Server, Servers

TRIM_INTERVAL: Final = 1.0
"""Seconds between two appends to a shard that also trim it by age."""
CHECKED_MS: Final = 60_000
"""After a reconnect the bus checks the last confirmed entry if it is younger. An older one is on disk and on
the replicas."""
REPEAT_S: Final = 0.05
"""Pause before an append is sent again to a slot that has no master for a moment."""

APPEND_ONCE: Final = Path(__file__).with_name("append_once.lua").read_bytes()
APPEND_ONCE_SHA: Final = hashlib.sha1(APPEND_ONCE, usedforsecurity=False).hexdigest().encode()

Reply: TypeAlias = bytes | int | list[Any] | Exception | None

_log = structlog.get_logger(__name__)


class HandshakeRefused(ConnectionError):
    """Redis answered the first commands with an error, e.g. because it is still loading."""


class Placed(Protocol):
    """Envelopes and their shards: `homewire._core.PlacedEvents`."""

    def __len__(self) -> int: ...
    def commands(self, prefixes: XaddPrefixes, /) -> bytes: ...
    def placed(self) -> list[tuple[int, int, bytes]]: ...
    @property
    def last_shard(self) -> int | None: ...


class Bus:
    """Appends envelopes to shards. A process has one, on its event loop. `BusSettings` has its bounds."""

    def __init__(self, settings: BusSettings, servers: Servers | None = None) -> None:
        """Opens no connection. `servers` are those at the URL of the settings. Raises ConfigurationError for
        an invalid URL."""
        self.stats = BusStats()
        self._settings = settings
        self._servers = servers or Servers(parse_address(settings.url))
        self._links: dict[Server, ServerLink] = {}
        self._only: ServerLink | None = None
        """The link of a Redis that is no cluster."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = [slot_of(events_key(shard)) for shard in range(settings.shards)]
        self._newest_id = b"0-0"
        self._newest: list[bytes | None] = [None] * settings.shards
        """The last confirmed entry of each shard."""
        self._served_by: list[Server | None] = [None] * settings.shards
        self._unchecked: dict[Server, dict[int, bytes]] = defaultdict(dict)
        """The same, as it was when a server got the shard from another one, until it was looked for there."""
        self._prefixes = XaddPrefixes(settings.shards)
        self._trim_at = 0.0
        self._seldom = Seldom(1.0)

    @property
    def connected(self) -> bool:
        """Whether an append to any shard would be written at once."""
        if self._only is not None:
            return self._only.connected
        masters = self._servers.masters()
        links = [self._links.get(each) for each in masters]
        return bool(masters) and all(each is not None and each.connected for each in links)

    @property
    def idempotency_ms(self) -> int:
        """How long an Idempotency-Key is stored."""
        return self._settings.idempotency_ms

    async def start(self) -> None:
        """Connect. Returns after the first attempt; if it failed, the bus tries again in the background.

        Raises ConfigurationError when Redis refuses the credentials.
        """
        self._loop = asyncio.get_running_loop()
        if self._servers.single is not None:
            self._only = self._link(self._servers.single)
        else:
            self._servers.on_change = self._note_servers
            await self._servers.refresh()
            self._note_servers()
        await asyncio.gather(*(link.first_attempt() for link in self._links.values()))

    async def close(self) -> None:
        """Refuse new appends, wait for pending replies until their deadlines, then disconnect."""
        self._servers.on_change = None
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._tasks)

    async def append(self, shard: int, envelope: bytes) -> bytes:
        """Append one envelope. Returns its stream id `<ms>-<seq>` once it is confirmed. Raises BusError."""
        link = self._only or self._link_of(shard)
        reply = (await link.submit(self.prefixes.xadd(shard, envelope), 1).waiter)[0]
        if type(reply) is not bytes:
            reply = await self._repeat(reply, shard, link, partial(self._xadd, shard, envelope))
            if type(reply) is not bytes:
                raise self._failure(reply)
        self.stats.appended += 1
        self._newest_id = self._newest[shard] = reply
        return reply

    async def append_all(self, placed: Placed) -> list[bytes | BusError]:
        """Append all placed events. Returns the stream id or the error of each."""
        last_shard = placed.last_shard
        if last_shard is None:
            return []
        if self._only is None:
            return await self.append_each([(shard, envelope) for _, shard, envelope in placed.placed()])
        batch = self._submit_all(self._only, placed.commands(self.prefixes), len(placed))
        return self._outcomes(await self._replies(batch, len(placed)), last_shard)

    async def append_each(self, items: Sequence[tuple[int, bytes]]) -> list[bytes | BusError]:
        """Append envelopes to their shards. Returns the stream id or the error of each."""
        groups: dict[ServerLink | None, list[int]] = defaultdict(list)
        for at, (shard, _) in enumerate(items):
            groups[self._only or self._find_link(shard)].append(at)
        # All in this turn of the event loop: calls keep their order in each shard.
        sent = [
            (link, places, self._submit_all(link, self._xadds(items, places), len(places)))
            for link, places in groups.items()
        ]
        outcomes: list[bytes | BusError] = [BusUnavailable()] * len(items)
        for link, places, batch in sent:
            replies = await self._replies(batch, len(places))
            # One after the other: events of one shard stay in their order.
            for number, at in enumerate(places):
                if link is not None and type(replies[number]) is not bytes:
                    command = partial(self._xadd, *items[at])
                    replies[number] = await self._repeat(replies[number], items[at][0], link, command)
            for at, outcome in zip(places, self._outcomes(replies, items[places[-1]][0]), strict=True):
                outcomes[at] = outcome
        return outcomes

    def _submit_all(
        self, link: ServerLink | None, commands: bytes, count: int
    ) -> PendingAppends | BusUnavailable:
        if link is None:
            self.stats.unavailable += count
            return BusUnavailable()
        try:
            return link.submit(commands, count)
        except BusUnavailable as error:
            return error

    async def _replies(self, batch: PendingAppends | BusUnavailable, count: int) -> list[Reply]:
        return [batch] * count if isinstance(batch, BusUnavailable) else await batch.waiter

    def _outcomes(self, replies: list[Reply], last_shard: int) -> list[bytes | BusError]:
        # Usually all replies are ids. Then nothing is done for each of them.
        if set(map(type, replies)) == {bytes}:
            self.stats.appended += len(replies)
            self._newest_id = self._newest[last_shard] = cast(bytes, replies[-1])
            return cast(list[bytes | BusError], replies)
        outcomes = [reply if type(reply) is bytes else self._failure(reply) for reply in replies]
        self.stats.appended += sum(type(outcome) is bytes for outcome in outcomes)
        return outcomes

    def _xadds(self, items: Sequence[tuple[int, bytes]], places: Sequence[int]) -> bytes:
        return b"".join([self.prefixes.xadd(*items[at]) for at in places])

    def _xadd(self, shard: int, envelope: bytes) -> bytes:
        return self.prefixes.xadd(shard, envelope)

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
        reply = await self._call(shard, pack([b"EVALSHA", APPEND_ONCE_SHA, *arguments]))
        if isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT"):
            # The script was not executed, so it can be sent again.
            reply = await self._call(shard, pack([b"EVAL", APPEND_ONCE, *arguments]))
        if reply is None:
            return None
        if not isinstance(reply, list):
            raise self._failure(reply)
        added, *ids = reply
        self.stats.appended += added
        self.stats.duplicates += len(ids) - added
        return ids

    async def _call(self, shard: int, command: bytes) -> Reply:
        link = self._only or self._link_of(shard)
        reply: Reply = (await link.submit(command, 1).waiter)[0]
        return await self._repeat(reply, shard, link, lambda: command)

    async def _repeat(
        self, reply: Reply, shard: int, link: ServerLink, command: Callable[[], bytes]
    ) -> Reply:
        """The reply to `command`, sent again while servers of a cluster say that it was not executed."""
        until = self._loop.time() + self._settings.outage_grace
        while self._only is None and self._loop.time() < until:
            redirect = Redirect.of(reply)
            asking = b""
            try:
                if redirect is not None:
                    server = self._servers.follow(redirect, link.server)
                    link = self._link(server) if redirect.is_ask else self._link_of(shard)
                    asking = _ASKING if redirect.is_ask else b""
                elif is_failing_over(reply):
                    self._servers.refresh_soon()
                    await asyncio.sleep(REPEAT_S)
                    link = self._link_of(shard)
                else:
                    break
                reply = (await link.submit(asking + command(), 2 if asking else 1).waiter)[-1]
            except BusUnavailable as error:
                return error
        return reply

    # -- links --

    def _link_of(self, shard: int) -> ServerLink:
        """The link of a shard. Raises BusUnavailable if no server is known to serve it."""
        link = self._find_link(shard)
        if link is None:
            self.stats.unavailable += 1
            raise BusUnavailable
        return link

    def _find_link(self, shard: int) -> ServerLink | None:
        server = self._servers.of_slot(self._slots[shard])
        link = None if server is None else self._link(server)
        if link is None or not link.connected:
            self._servers.refresh_soon()
        return link

    def _link(self, server: Server) -> ServerLink:
        link = self._links.get(server)
        if link is None:
            link = ServerLink(self._servers, server, self._settings, self.stats, self._shake_hands)
            self._links[server] = link
        return link

    def _note_servers(self) -> None:
        """Have a link to each master and to no other server: a master that became a replica may become
        master again with another history."""
        masters = set(self._servers.masters())
        for shard, slot in enumerate(self._slots):
            server, newest = self._servers.of_slot(slot), self._newest[shard]
            if server is not None and server is not self._served_by[shard]:
                self._served_by[shard] = server
                if newest is not None:
                    self._unchecked[server][shard] = newest
        for server in [each for each in self._links if each not in masters]:
            self._in_background(self._links.pop(server).close())
        for server in masters:
            connection = self._link(server).connection
            if connection is not None and self._unchecked[server]:
                # Without a connection the next one is checked.
                self._in_background(self._check_gained(self._begin_check(server, connection)))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _failure(self, reply: Reply) -> BusError:
        """The error for a reply that is no stream id; counts it."""
        if isinstance(reply, NotConfirmed):
            self.stats.not_confirmed += 1
            return reply
        if isinstance(reply, BusUnavailable):
            return reply  # It was counted where it was made.
        self.stats.unavailable += 1
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

    # -- a new connection --

    async def _shake_hands(self, link: ServerLink, connection: RedisConnection) -> None:
        """Load the script; check that the server is done loading, and has what it confirmed last."""
        replies = await exchange(
            connection, ("CLIENT", "SETNAME", "homewire-bus"), ("SCRIPT", "LOAD", APPEND_ONCE), ("TIME",)
        )
        _raise_refusal(replies)
        seconds, microseconds = replies[-1]
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        await self._end_check(self._begin_check(link.server, connection), now_ms)
        self._newest_id = b"%d-0" % now_ms
        self._trim_at = 0.0

    async def _check_gained(self, check: _Check) -> None:
        try:
            await self._end_check(check, int(self._newest_id.partition(b"-")[0]))
        except HandshakeRefused as error:
            # The next connection is checked again.
            _log.warning("bus.unchecked", error=str(error))

    def _shards_of(self, server: Server) -> list[int]:
        if self._servers.single is not None:
            return list(range(self._settings.shards))
        return [shard for shard, slot in enumerate(self._slots) if self._servers.of_slot(slot) is server]

    def _begin_check(self, server: Server, connection: RedisConnection) -> _Check:
        """Ask a server for the entry of its shards that was confirmed last, before it gets any other append.

        A server that lost data lost its newest entries first. Stream readers notice a loss by their counts,
        except for entries that none of them had read. Only the node that got the confirmation knows of those.
        """
        shards = self._shards_of(server)
        last = {each: newest for each in shards if (newest := self._newest[each]) is not None}
        gained = self._unchecked.pop(server, {})
        confirmed = last | {each: newest for each, newest in gained.items() if each in shards}
        check = _Check(connection, shards, last, confirmed)
        if confirmed:
            key = events_key(check.shard)
            commands = ("XREVRANGE", key, check.newest, "-", "COUNT", 1), ("XINFO", "STREAM", key)
            check.asked = PendingReplies(b"".join(map(pack, commands)), 2)
            connection.write([check.asked])
        return check

    async def _end_check(self, check: _Check, now_ms: int) -> None:
        """If the server lacks the entry, renew the epochs of its shards: they tell all readers.

        An entry older than CHECKED_MS may be missing. Raises HandshakeRefused.
        """
        if check.asked is not None:
            up_to_newest, information = await check.asked.waiter
            is_young = int(check.newest.partition(b"-")[0]) >= now_ms - CHECKED_MS
            _raise_refusal([up_to_newest])
            if is_young and not still_has(check.newest, up_to_newest, information):
                _log.error("bus.history_lost", shard=check.shard, newest_confirmed=check.newest.decode())
                renewals = [("SET", epoch_key(each), secrets.token_hex(8)) for each in check.shards]
                _raise_refusal(await exchange(check.connection, *renewals))
        for each, newest in check.last.items():
            if self._newest[each] == newest:
                self._newest[each] = None


class _Check:
    """A question for the entry of some shards that was confirmed last."""

    def __init__(
        self,
        connection: RedisConnection,
        shards: Sequence[int],
        last: dict[int, bytes],
        confirmed: dict[int, bytes],
    ) -> None:
        self.connection = connection
        self.shards = shards
        self.last = last
        self.shard, self.newest = max(confirmed.items(), key=lambda e: _id_order(e[1]), default=(0, b""))
        self.asked: PendingReplies | None = None


_ASKING: Final = pack(("ASKING",))


def _raise_refusal(replies: Sequence[Reply]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise HandshakeRefused(str(reply))


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
