"""Connections of a user, a device, a project and an address: checked at the handshake, shared by leases.

The core counts the connections of this node (`rust/core/src/connection/counts.rs`). If a subject has more
than a sixteenth of its limit here, the node publishes the count in Redis, with a lease. In the same round
trip it reads the counts of other nodes, which are valid until their leases end.

Each subject has a hash in Redis, with a field for each node: `<count> <end of its lease in ms>`. A field past
its lease is of a node that died, or that had no connection to Redis for long. It does not count and is
removed. The end of a lease is a time of Redis' clock, which may be stepped. So a node reads it once, when it
sees a new text, and then counts the rest of the lease by its monotonic clock.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Final, NamedTuple, NoReturn, TypeAlias

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homewire._core import Core
from homewire.auth.models import Principal
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import wait_debounced
from homewire.errors import TooManyRequests
from homewire.limits.buckets import Buckets
from homewire.limits.sharing import (
    COMMANDS_PER_PIPELINE,
    SIXTEENTH,
    Command,
    SharedClock,
    raise_first,
    repeat,
    run_pipeline,
)
from homewire.settings import Settings

RETRY_AFTER_S: Final = 10
"""When another connection will end is unknown."""
INTERVAL_S: Final = 1.0
EXCEEDED_S: Final = 1.0
"""A socket that exceeded its allowance of frames costs its principal the handshakes of this time."""
LEAST_PAUSE_S: Final = 0.1
RELEASE_S: Final = 3.0
"""How long a node that stops tries to remove its counts. Otherwise they end with their leases."""
REFRESHES_A_LEASE: Final = 3
COMMANDS_A_SUBJECT: Final = 3
FEW: Final = 8
"""From this limit on, a single connection is not shared: most users and devices have only one."""
NEVER: Final = 2**32 - 1
NEVER_BYTES: Final = 2**64
UNSURE: Final = -1
SETTINGS: Final = {
    "user": "user_connections",
    "device": "device_connections",
    "project": "project_connections",
    "address": "address_connections",
}
TOPIC_SETTINGS: Final = ("user_topic_bytes", "project_topic_bytes")
"""Limits on the memory of topics, in the order of `Core.connection_counts`."""

_log = structlog.get_logger(__name__)


class Limit(NamedTuple):
    """A limit on connections; with `most` 0 there is none."""

    setting: str
    most: int

    @property
    def share_above(self) -> int:
        """A count above this on one node is shared with the other nodes."""
        if not self.most:
            return NEVER
        return max(self.most // SIXTEENTH, 1 if self.most >= FEW else 0)


class ConnectionLimits:
    """Checks at the handshake that one more connection is within the limits, without a round trip to
    Redis."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        refusals: Counter[str] | None = None,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        self.core: Final = core
        self.lease_s: Final = settings.connection_lease_s
        self.limits: Final = {kind: Limit(name, getattr(settings, name)) for kind, name in SETTINGS.items()}
        self.boot_id: Final = secrets.token_hex(8)
        """The field of this process in the hashes of `held_key`."""
        self.other_nodes: Final = OtherNodes(self.boot_id.encode(), clock)
        self.published: Final[dict[Subject, int]] = {}
        """The counts of this node as published, by subject."""
        self.to_refresh: Final[set[Subject]] = set()
        """Subjects with a handshake since the last exchange, for which the counts of other nodes are read
        again."""
        self.grown: Final = asyncio.Event()
        """Set when a count grew by a sixteenth of its limit: it is published at once."""
        self._share_above = {kind: limit.share_above for kind, limit in self.limits.items()}
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        most = settings.principal_handshakes_per_s
        self._handshakes = Buckets("principal_handshakes_per_s", most, self._refusals, clock)
        self._most_topic_bytes = [(name, getattr(settings, name) or NEVER_BYTES) for name in TOPIC_SETTINGS]
        self._refusals.update(dict.fromkeys((*SETTINGS.values(), *TOPIC_SETTINGS), 0))

    def check(self, principal: Principal, address: str | None) -> None:
        """Raises TooManyRequests, with the setting, if one more connection of `principal` from `address`
        exceeds a limit.

        To be called once for a handshake, right before its reservation. Without an await in between, no other
        handshake can take the free place.
        """
        kind = principal.kind.value
        self._handshakes.take((kind, principal.id))
        own, project, here, *topic_bytes = self.core.connection_counts(principal, address)
        # Most subjects are far from their limits: then a check is one comparison.
        if own >= self._share_above[kind]:
            self._require(own, (kind, principal.project_id, str(principal.id)))
        if project >= self._share_above["project"]:
            self._require(project, ("project", principal.project_id, ""))
        if here >= self._share_above["address"] and address is not None:
            self._require(here, ("address", 0, network_of(address)))
        # Memory is limited for each node. The topics of the new connection, a thousand at most, are not
        # counted yet, so the limit can be exceeded by them.
        for (setting, most), held in zip(self._most_topic_bytes, topic_bytes, strict=True):
            if held >= most:
                self._refuse(setting, most)

    def allowance_exceeded(self, kind: str, principal_id: int) -> None:
        """A socket of this principal was closed with 1008: delay its next handshakes.

        Otherwise the client reconnects at once, and a handshake costs more than the frames that it sent.
        """
        self._handshakes.charge((kind, principal_id), EXCEEDED_S)

    def _refuse(self, setting: str, most: int) -> NoReturn:
        self._refusals[setting] += 1
        raise TooManyRequests(setting, RETRY_AFTER_S, most=most)

    def _require(self, own: int, subject: Subject) -> None:
        limit = self.limits[subject[0]]
        others = self.other_nodes.count(subject)
        if own < limit.most:
            self.to_refresh.add(subject)
        if own + others >= limit.most:
            self._refuse(limit.setting, limit.most)
        if own + 1 - self.published.get(subject, 0) > limit.share_above:
            self.grown.set()

    def to_share(self) -> dict[Subject, int]:
        """The subjects with more than a sixteenth of a limit on this node, and their counts."""
        above = self._share_above
        found = self.core.connections_above(
            above["user"], above["device"], above["project"], above["address"]
        )
        return {(kind, project, name): count for kind, project, name, count in found}


class ConnectionSharing:
    """Publishes the counts of this node, and reads those of the other nodes.

    Changed counts are published every `interval_s` seconds, and at once when one grew by a sixteenth of its
    limit. All counts are published three times in each lease.
    """

    def __init__(
        self, redis: Redis, limits: ConnectionLimits, clock: SharedClock, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._clock = clock
        self._interval_s = interval_s
        self._refresh_at = 0.0

    async def run(self) -> None:
        """Share until cancelled."""
        await repeat("connections", self.share, self._pause)

    async def share(self) -> None:
        """One exchange. Raises RedisError, OSError."""
        await self._clock.synchronise()
        limits, now = self._limits, self._clock.now()
        own = limits.to_share()
        to_refresh = limits.to_refresh.copy()
        limits.to_refresh.clear()
        everything = now >= self._refresh_at
        due = [
            subject
            for subject, count in own.items()
            if everything or subject in to_refresh or count != limits.published.get(subject)
        ]
        step = COMMANDS_PER_PIPELINE // COMMANDS_A_SUBJECT
        for start in range(0, len(due), step):
            await self._exchange({subject: own[subject] for subject in due[start : start + step]})
        await self._remove([subject for subject in limits.published if subject not in own])
        limits.other_nodes.retain(own.keys())
        if everything:
            self._refresh_at = now + limits.lease_s / REFRESHES_A_LEASE

    async def release(self) -> None:
        """Remove all counts of this node, which stops. If that fails, they end with their leases."""
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._remove(list(self._limits.published))
        except (RedisError, OSError) as error:
            _log.info("limits.not_released", error=type(error).__name__)

    async def _exchange(self, some: dict[Subject, int]) -> None:
        limits = self._limits
        lease_ms, now_ms = round(limits.lease_s * 1000), round(self._clock.now() * 1000)
        commands: list[Command] = []
        for subject, count in some.items():
            key = held_key(subject)
            text = lease_text(CountLease(count, now_ms + lease_ms))
            commands += [("HSET", key, limits.boot_id, text), ("PEXPIRE", key, lease_ms)]
            commands += [("HGETALL", key)]
        # If this is interrupted, the counts in Redis are unknown: they are written again, or removed.
        limits.published.update(dict.fromkeys(some, UNSURE))
        replies = await run_pipeline(self._redis, commands)
        dead: list[Command] = []
        for (subject, count), fields in zip(some.items(), replies[2::COMMANDS_A_SUBJECT], strict=True):
            if isinstance(fields, dict):
                limits.published[subject] = count
                over = limits.other_nodes.update(subject, fields, now_ms)
                dead += [("HDEL", held_key(subject), field) for field in over]
        raise_first(replies)
        await self._in_batches(dead)

    async def _remove(self, subjects: list[Subject]) -> None:
        """Remove the counts of this node for these subjects."""
        await self._in_batches(("HDEL", held_key(subject), self._limits.boot_id) for subject in subjects)
        for subject in subjects:
            del self._limits.published[subject]

    async def _in_batches(self, commands: Iterable[Command]) -> None:
        some = list(commands)
        for start in range(0, len(some), COMMANDS_PER_PIPELINE):
            raise_first(await run_pipeline(self._redis, some[start : start + COMMANDS_PER_PIPELINE]))

    async def _pause(self) -> None:
        await wait_debounced(self._clock.own, self._limits.grown, LEAST_PAUSE_S, self._interval_s)


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """The address as the core counts it: an IPv4 address itself, for IPv6 the first address of its /64."""
    if ":" not in address:
        return address
    network = IPv6Network((address.partition("%")[0], 64), strict=False).network_address
    full = IPv6Network((address.partition("%")[0], 128)).network_address
    return str(full.ipv4_mapped or network)


Subject: TypeAlias = tuple[str, int, str]
"""Kind, project id (0 for an address), and id or address, as in `Core.connections_above`."""
MAX_TEXT: Final = 40
"""Characters of two numbers of 64 bits."""


@dataclass(frozen=True, slots=True)
class CountLease:
    """The count of one subject on one node, and the end of its lease by Redis' clock."""

    count: int
    end_ms: int


def lease_text(lease: CountLease) -> str:
    """The value of a field."""
    return f"{lease.count} {lease.end_ms}"


def parse_lease(text: bytes) -> CountLease | None:
    """Parse the value of a field; None for an invalid one."""
    count, separator, end_ms = text.partition(b" ")
    if len(text) > MAX_TEXT or not (separator and count.isdigit() and end_ms.isdigit()):
        return None
    return CountLease(int(count), int(end_ms))


def held_key(subject: Subject) -> str:
    """The key of a subject's hash, in the slot of its project or address."""
    kind, project_id, name = subject
    if kind == "address":
        return f"hw:{{a{name}}}:held"
    return f"hw:{{p{project_id}}}:held:{kind}:{name}" if name else f"hw:{{p{project_id}}}:held:{kind}"


class _ObservedLease(NamedTuple):
    """A lease when it was first seen."""

    text: bytes
    connections: int
    until: float
    """Its end in monotonic seconds."""


class OtherNodes:
    """The counts of other nodes, by subject."""

    def __init__(self, own_field: bytes, clock: Clock = MACHINE_CLOCK) -> None:
        self._own_field = own_field
        self._monotonic = clock.monotonic
        self._leases: dict[Subject, dict[bytes, _ObservedLease]] = {}

    def count(self, subject: Subject) -> int:
        """The number of connections on other nodes; 0 for a subject that is not shared."""
        leases = self._leases.get(subject)
        if not leases:
            return 0
        now = self._monotonic()
        return sum(seen.connections for seen in leases.values() if seen.until > now)

    def update(self, subject: Subject, fields: Mapping[bytes, bytes], now_ms: int) -> list[bytes]:
        """Take over the fields of a subject's hash, read at `now_ms` of Redis' clock.

        Returns the fields to remove: past their lease, or invalid.
        """
        now, known = self._monotonic(), self._leases.get(subject, {})
        alive: dict[bytes, _ObservedLease] = {}
        for field, text in fields.items():
            seen = known.get(field)
            if seen is None or seen.text != text:
                seen = _first_seen(text, now, now_ms)
            if seen is not None and seen.until > now:
                alive[field] = seen
        alive.pop(self._own_field, None)
        self._leases[subject] = alive
        return [field for field in fields if field not in alive and field != self._own_field]

    def retain(self, subjects: Collection[Subject]) -> None:
        """Forget all other subjects."""
        for subject in self._leases.keys() - subjects:
            del self._leases[subject]

    def __len__(self) -> int:
        """The number of subjects with counts."""
        return len(self._leases)


def _first_seen(text: bytes, now: float, now_ms: int) -> _ObservedLease | None:
    lease = parse_lease(text)
    return None if lease is None else _ObservedLease(text, lease.count, now + (lease.end_ms - now_ms) / 1000)
