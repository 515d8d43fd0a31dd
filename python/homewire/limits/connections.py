"""Connections of a user, a device, a project and an address: checked at the handshake, shared by leases.

The core counts what this node holds (`rust/core/src/connection/counts.rs`). Who holds more than a sixteenth
of a limit here is published in Redis under this node's boot id, with a lease, and read back at the same time.

What other nodes hold, as last read, believed for as long as each one's lease lasts.

A node says `<count> <end of its lease in ms>` in its field of the subject's hash. A field past its lease
is of a node that died, or was cut off from Redis for long: it does not count and is to be removed. The end
is a time of Redis' clock, which may be stepped. So how long a lease has to go is counted, by a clock that is
never stepped, from when its text was first seen.
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
    COMMANDS_PER_TRIP,
    SIXTEENTH,
    Command,
    SharedClock,
    raise_first,
    repeat,
    trip,
)
from homewire.settings import Settings

RETRY_AFTER_S: Final = 10
"""There is no telling when one of the others ends; soon after is early enough."""
INTERVAL_S: Final = 1.0
EXCEEDED_S: Final = 1.0
"""How much of its rate of handshakes a principal pays for a socket that sent more than its allowance."""
LEAST_PAUSE_S: Final = 0.1
RELEASE_S: Final = 3.0
"""How long a node that stops tries to take its counts back; else their leases end them."""
REFRESHES_A_LEASE: Final = 3
COMMANDS_A_SUBJECT: Final = 3
FEW: Final = 8
"""From this limit on a single connection is no reason to share: most users and devices have just one."""
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
"""Limits on the memory of topics, in the order in which the core answers."""

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
    """Checks at the handshake whether one more connection is within the limits, without asking Redis."""

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
        """This process' name in the hashes of `held_key`."""
        self.elsewhere: Final = Elsewhere(self.boot_id.encode(), clock)
        self.published: Final[dict[Subject, int]] = {}
        """What the others were told of this node, by subject."""
        self.asked: Final[set[Subject]] = set()
        """Who came, near enough to a limit to be shared: by now the others may hold more, or less."""
        self.grown: Final = asyncio.Event()
        """Set when somebody grew by a sixteenth of a limit: the others should hear of it now."""
        self._share_above = {kind: limit.share_above for kind, limit in self.limits.items()}
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        most = settings.principal_handshakes_per_s
        self._handshakes = Buckets("principal_handshakes_per_s", most, self._refusals, clock)
        self._most_topic_bytes = [(name, getattr(settings, name) or NEVER_BYTES) for name in TOPIC_SETTINGS]
        self._refusals.update(dict.fromkeys((*SETTINGS.values(), *TOPIC_SETTINGS), 0))

    def check(self, principal: Principal, address: str | None) -> None:
        """Raises TooManyRequests naming the setting, unless one more connection of `principal` from
        `address` is within all limits.

        To be called once for a handshake, right before its reservation: with nothing awaited in between
        no other handshake can take the place that was found free.
        """
        kind = principal.kind.value
        self._handshakes.take((kind, principal.id))
        own, project, here, *topic_bytes = self.core.connection_counts(
            kind, principal.project_id, principal.id, address
        )
        # Most are far from their limits, and pay for a comparison each.
        if own >= self._share_above[kind]:
            self._require(own, (kind, principal.project_id, str(principal.id)))
        if project >= self._share_above["project"]:
            self._require(project, ("project", principal.project_id, ""))
        if here >= self._share_above["address"] and address is not None:
            self._require(here, ("address", 0, network_of(address)))
        # Memory is this node's own, so nobody else is asked. What the new connection listens to is not in it
        # yet: its own topics, of which it may have a thousand, are how far the limit can be passed.
        for (setting, most), held in zip(self._most_topic_bytes, topic_bytes, strict=True):
            if held >= most:
                self._refuse(setting, most)

    def allowance_exceeded(self, kind: str, principal_id: int) -> None:
        """A socket of this principal was closed with 1008: its next handshakes have to wait. Without this the
        client comes back at once, and a socket costs a handshake, which is more than all its frames did."""
        self._handshakes.charge((kind, principal_id), EXCEEDED_S)

    def _refuse(self, setting: str, most: int) -> NoReturn:
        self._refusals[setting] += 1
        raise TooManyRequests(setting, RETRY_AFTER_S, most=most)

    def _require(self, own: int, subject: Subject) -> None:
        limit = self.limits[subject[0]]
        others = self.elsewhere.count(subject)
        if own < limit.most:
            self.asked.add(subject)
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
    """Publishes what this node holds, and reads what the others do.

    What changed goes out every `interval_s` seconds and at once when it grew by a sixteenth; all of it,
    three times a lease.
    """

    def __init__(
        self, redis: Redis, admission: ConnectionLimits, clock: SharedClock, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._redis = redis
        self._admission = admission
        self._clock = clock
        self._interval_s = interval_s
        self._refresh_at = 0.0

    async def run(self) -> None:
        """Share until cancelled."""
        await repeat("connections", self.share, self._pause)

    async def share(self) -> None:
        """One exchange. Raises RedisError, OSError."""
        await self._clock.synchronise()
        admission, now = self._admission, self._clock.now()
        own = admission.to_share()
        asked = admission.asked.copy()
        admission.asked.clear()
        everything = now >= self._refresh_at
        due = [
            subject
            for subject, count in own.items()
            if everything or subject in asked or count != admission.published.get(subject)
        ]
        step = COMMANDS_PER_TRIP // COMMANDS_A_SUBJECT
        for start in range(0, len(due), step):
            await self._exchange({subject: own[subject] for subject in due[start : start + step]})
        await self._take_back([subject for subject in admission.published if subject not in own])
        admission.elsewhere.keep(own.keys())
        if everything:
            self._refresh_at = now + admission.lease_s / REFRESHES_A_LEASE

    async def release(self) -> None:
        """Take back everything, as this node ends; of what fails the leases end."""
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._take_back(list(self._admission.published))
        except (RedisError, OSError) as error:
            _log.info("overload.not_released", error=type(error).__name__)

    async def _exchange(self, some: dict[Subject, int]) -> None:
        admission = self._admission
        lease_ms, now_ms = round(admission.lease_s * 1000), round(self._clock.now() * 1000)
        commands: list[Command] = []
        for subject, count in some.items():
            key = held_key(subject)
            said = lease_text(Lease(count, now_ms + lease_ms))
            commands += [("HSET", key, admission.boot_id, said), ("PEXPIRE", key, lease_ms)]
            commands += [("HGETALL", key)]
        # If this is broken off, nobody knows what arrived: to be said again, or taken back.
        admission.published.update(dict.fromkeys(some, UNSURE))
        replies = await trip(self._redis, commands)
        dead: list[Command] = []
        for (subject, count), fields in zip(some.items(), replies[2::COMMANDS_A_SUBJECT], strict=True):
            if isinstance(fields, dict):
                admission.published[subject] = count
                over = admission.elsewhere.learn(subject, fields, now_ms)
                dead += [("HDEL", held_key(subject), field) for field in over]
        raise_first(replies)
        await self._in_batches(dead)

    async def _take_back(self, subjects: list[Subject]) -> None:
        """Remove this node's word about subjects, and forget them."""
        await self._in_batches(("HDEL", held_key(subject), self._admission.boot_id) for subject in subjects)
        for subject in subjects:
            del self._admission.published[subject]

    async def _in_batches(self, commands: Iterable[Command]) -> None:
        some = list(commands)
        for start in range(0, len(some), COMMANDS_PER_TRIP):
            raise_first(await trip(self._redis, some[start : start + COMMANDS_PER_TRIP]))

    async def _pause(self) -> None:
        await wait_debounced(self._clock.own, self._admission.grown, LEAST_PAUSE_S, self._interval_s)


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """The address as the core counts it: IPv4 by itself, of IPv6 the first of its /64."""
    if ":" not in address:
        return address
    network = IPv6Network((address.partition("%")[0], 64), strict=False).network_address
    full = IPv6Network((address.partition("%")[0], 128)).network_address
    return str(full.ipv4_mapped or network)


Subject: TypeAlias = tuple[str, int, str]
"""Kind, project (0 for an address), id or address: as `Core.connections_above` names it."""
LONGEST_TEXT: Final = 40
"""Two numbers of 64 bits."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One node's word on one subject."""

    count: int
    end_ms: int


def lease_text(lease: Lease) -> str:
    """A field's value."""
    return f"{lease.count} {lease.end_ms}"


def parse_lease(text: bytes) -> Lease | None:
    """None for what no node wrote."""
    count, separator, end_ms = text.partition(b" ")
    if len(text) > LONGEST_TEXT or not (separator and count.isdigit() and end_ms.isdigit()):
        return None
    return Lease(int(count), int(end_ms))


def held_key(subject: Subject) -> str:
    """The hash of a subject: one field for each node that shares it. An address belongs to no project."""
    kind, project_id, name = subject
    if kind == "address":
        return f"hw:{{a{name}}}:held"
    return f"hw:{{p{project_id}}}:held:{kind}:{name}" if name else f"hw:{{p{project_id}}}:held:{kind}"


class _Seen(NamedTuple):
    """A lease as it was seen first."""

    text: bytes
    connections: int
    until: float
    """Its end by the clock of `Elsewhere`."""


class Elsewhere:
    """The counts of other nodes, by subject."""

    def __init__(self, own_field: bytes, clock: Clock = MACHINE_CLOCK) -> None:
        self._own_field = own_field
        self._monotonic = clock.monotonic
        self._leases: dict[Subject, dict[bytes, _Seen]] = {}

    def count(self, subject: Subject) -> int:
        """How many connections the others hold; 0 for a subject that is not shared."""
        leases = self._leases.get(subject)
        if not leases:
            return 0
        now = self._monotonic()
        return sum(seen.connections for seen in leases.values() if seen.until > now)

    def learn(self, subject: Subject, fields: Mapping[bytes, bytes], now_ms: int) -> list[bytes]:
        """What the hash says now, `now_ms` by Redis' clock. The fields to remove: past their lease, or no
        node's word."""
        now, known = self._monotonic(), self._leases.get(subject, {})
        alive: dict[bytes, _Seen] = {}
        for field, text in fields.items():
            seen = known.get(field)
            if seen is None or seen.text != text:
                seen = _first_seen(text, now, now_ms)
            if seen is not None and seen.until > now:
                alive[field] = seen
        alive.pop(self._own_field, None)
        self._leases[subject] = alive
        return [field for field in fields if field not in alive and field != self._own_field]

    def keep(self, subjects: Collection[Subject]) -> None:
        """Forget every subject but these."""
        for subject in self._leases.keys() - subjects:
            del self._leases[subject]

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._leases)


def _first_seen(text: bytes, now: float, now_ms: int) -> _Seen | None:
    lease = parse_lease(text)
    return None if lease is None else _Seen(text, lease.count, now + (lease.end_ms - now_ms) / 1000)
