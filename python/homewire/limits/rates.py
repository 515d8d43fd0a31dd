"""Events and bytes per second, over all nodes: the counts of this node, and their exchange with other nodes.

A second is one of Redis' clock, and its counts end with it. Counting an event takes two look-ups in a dict,
and no round trip.

Redis has a counter for each subject and second, `hw:{p<project>}:rate:<subject>:<second>` (and for bytes
`…:rate:event_bytes:<subject>:<second>`), in the slot of the project. Each node adds its counts, and the reply
is the total. A node does this at least ten times a second while a subject is near its limit, and at once when
a subject used another sixteenth of it. While no subject is near a limit there is no exchange.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Final

from redis.asyncio import Redis

from homewire.auth.models import Principal, PrincipalKind
from homewire.concurrency import wait_debounced
from homewire.errors import TooManyRequests
from homewire.limits.sharing import (
    COMMANDS_PER_PIPELINE,
    SIXTEENTH,
    Command,
    Seconds,
    SharedClock,
    machine_seconds,
    raise_first,
    repeat,
    run_pipeline,
)
from homewire.settings import Settings

RETRY_AFTER_S: Final = 1
"""By then the next second has begun."""
PROJECT: Final = "project"
EVENTS: Final = "events"
BYTES: Final = "event_bytes"
KEYS: Final = "idempotency_keys"
SETTINGS: Final = {
    unit: {
        PrincipalKind.DEVICE: f"device_{unit}_per_s",
        PrincipalKind.USER: f"user_{unit}_per_s",
        PrincipalKind.PROJECT_KEY: f"project_key_{unit}_per_s",
        PROJECT: f"project_{unit}_per_s",
    }
    for unit in (EVENTS, BYTES)
} | {
    KEYS: {
        PrincipalKind.DEVICE: "idempotency_keys",
        PrincipalKind.USER: "idempotency_keys",
        PrincipalKind.PROJECT_KEY: "idempotency_keys",
        PROJECT: "project_idempotency_keys",
    }
}
"""The setting of the limit, by unit and by kind of subject. All sessions of a user count together, and all
keys of a device."""


class RateCount:
    """The count of one subject in the current window: events, bytes or Idempotency-Keys."""

    __slots__ = (
        "id",
        "kind",
        "left",
        "others",
        "project_id",
        "published",
        "shared",
        "step",
        "unit",
        "unpublished",
        "window_s",
    )

    def __init__(self, unit: str, window_s: int, kind: str, project_id: int, id: int, limit: float) -> None:
        self.unit = unit
        self.window_s = window_s
        self.kind = kind
        self.project_id = project_id
        self.id = id
        self.left = limit
        """What is left of the limit, as far as this node knows. Below 0 if other nodes accepted more."""
        self.unpublished = 0
        """Accepted here and not added to the counter in Redis yet."""
        self.published = 0
        """Accepted here and added to the counter."""
        self.others = 0
        """Accepted by other nodes, when the counter was last read."""
        self.step = math.inf if limit == math.inf else limit // SIXTEENTH
        self.shared = False


class Rates:
    """Counts what this node accepts, and refuses what exceeds a limit.

    `now` is Redis' clock (`SharedClock.now`). By default it is the clock of this node.
    """

    def __init__(
        self, settings: Settings, now: Seconds = machine_seconds, refusals: Counter[str] | None = None
    ) -> None:
        self._now = now
        self.grown: Final = asyncio.Event()
        """Set when a subject used another sixteenth of its limit: its count is published at once."""
        counted: Counter[str] = Counter() if refusals is None else refusals
        self._meters: Final = tuple(
            Meter(unit, window_s, settings, now, counted, self.grown)
            for unit, window_s in ((EVENTS, 1), (BYTES, 1), (KEYS, math.ceil(settings.idempotency_ttl_s)))
        )
        events, size, keys = self._meters
        self.take = events.take
        """Count `count` events or commands of `principal`, all of them or none.

        Raises TooManyRequests, with the setting, for the limit of the sender or of its project.
        """
        self.take_bytes = size.take
        """Count the bytes of a request, if anything of the limit is left. Raises TooManyRequests."""
        self.take_keys = keys.take
        """Count Idempotency-Keys, if anything of the limit is left. Their window is `idempotency_ttl_s`, for
        which they are stored. Raises TooManyRequests."""

    def has_shared(self) -> bool:
        """Whether a count of the current window is shared with other nodes."""
        return any(meter.has_shared() for meter in self._meters)

    def take_unpublished(self) -> tuple[int, list[tuple[RateCount, int]]]:
        """Return the current second, and the amount of each shared subject that is not published yet.

        The amounts count as published from here on. Whether Redis adds them may stay unknown, and adding them
        twice would refuse what is within the limit.
        """
        second = int(self._now())
        return second, [each for meter in self._meters for each in meter.take_unpublished(second)]

    @staticmethod
    def update(count: RateCount, total: int) -> None:
        """Take over the counter of a subject, which is `total` over all nodes."""
        others = max(total - count.published, 0)
        count.left -= others - count.others
        count.others = others

    def __len__(self) -> int:
        """The number of subjects with counts."""
        return sum(map(len, self._meters))


class Meter:
    """The counts of one unit, in windows of `window_s` seconds."""

    def __init__(
        self,
        unit: str,
        window_s: int,
        settings: Settings,
        now: Seconds,
        refusals: Counter[str],
        grown: asyncio.Event,
    ) -> None:
        self._unit = unit
        self._window_s = window_s
        # A body may have more bytes or keys than the limit: it is accepted while anything is left.
        self._needs_all = unit == EVENTS
        self._now = now
        self._limits: dict[str, float] = {}
        for kind, setting in SETTINGS[unit].items():
            self._limits[kind] = getattr(settings, setting) or math.inf
        self._refusals = refusals
        self._refusals.update(dict.fromkeys(SETTINGS[unit].values(), 0))
        self._window = 0
        # By id without kind: an id is unique in the deployment.
        self._counts: dict[int, RateCount] = {}
        self._shared: list[RateCount] = []
        self._grown = grown

    def take(self, principal: Principal, count: int = 1) -> None:
        """See `Rates.take`, `Rates.take_bytes` and `Rates.take_keys`."""
        window = int(self._now()) // self._window_s
        if window != self._window:
            self._begin(window)
        counts, project_id = self._counts, principal.project_id
        own = counts.get(principal.id) or self._begin_count(principal.kind, project_id, principal.id)
        project = counts.get(project_id) or self._begin_count(PROJECT, project_id, project_id)
        least = count if self._needs_all else 1
        if own.left < least:
            raise self._refused(own)
        if project.left < least:
            raise self._refused(project)
        own.left -= count
        own.unpublished += count
        if own.unpublished > own.step:
            self._share(own)
        project.left -= count
        project.unpublished += count
        if project.unpublished > project.step:
            self._share(project)

    def has_shared(self) -> bool:
        """See `Rates.has_shared`."""
        return bool(self._shared)

    def take_unpublished(self, second: int) -> list[tuple[RateCount, int]]:
        """See `Rates.take_unpublished`."""
        window = second // self._window_s
        if window != self._window:
            self._begin(window)
        unpublished = [(count, count.unpublished) for count in self._shared if count.unpublished]
        for count, amount in unpublished:
            count.published += amount
            count.unpublished = 0
        return unpublished

    def __len__(self) -> int:
        """The number of subjects with counts."""
        return len(self._counts)

    def _begin(self, window: int) -> None:
        self._window = window
        self._counts = {}
        self._shared = []

    def _begin_count(self, kind: str, project_id: int, id: int) -> RateCount:
        count = RateCount(self._unit, self._window_s, kind, project_id, id, self._limits[kind])
        self._counts[id] = count
        return count

    def _share(self, count: RateCount) -> None:
        if not count.shared:
            count.shared = True
            self._shared.append(count)
        self._grown.set()

    def _refused(self, count: RateCount) -> TooManyRequests:
        setting = SETTINGS[self._unit][count.kind]
        self._refusals[setting] += 1
        left_s = (self._window + 1) * self._window_s - int(self._now())
        return TooManyRequests(setting, max(left_s, RETRY_AFTER_S), most=int(self._limits[count.kind]))


INTERVAL_S: Final = 0.1
LEAST_PAUSE_S: Final = 0.01
IDLE_S: Final = 1.0
"""Between two checks while no subject is near a limit. A subject that comes near one ends the pause."""
COUNTER_TTL_MS: Final = 5_000
"""How long a counter exists after its last change, so that nodes that are late can add to it."""
COMMANDS_A_SUBJECT: Final = 2


def rate_key(count: RateCount, second: int) -> str:
    """The key of a subject's counter for the window of this second."""
    unit = "" if count.unit == EVENTS else f"{count.unit}:"
    subject = PROJECT if count.kind == PROJECT else f"{count.kind.replace(' ', '-')}:{count.id}"
    return f"hw:{{p{count.project_id}}}:rate:{unit}{subject}:{second // count.window_s}"


class RateSharing:
    """Exchanges the counts of `rates` with the other nodes on the same Redis."""

    def __init__(
        self, redis: Redis, rates: Rates, clock: SharedClock, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._redis = redis
        self._rates = rates
        self._clock = clock
        self._interval_s = interval_s

    async def run(self) -> None:
        """Share until cancelled."""
        await repeat("rates", self.share, self._pause)

    async def share(self) -> None:
        """Exchange the counts that changed since the last exchange. Raises RedisError, OSError."""
        await self._clock.synchronise()
        second, unpublished = self._rates.take_unpublished()
        step = COMMANDS_PER_PIPELINE // COMMANDS_A_SUBJECT
        for start in range(0, len(unpublished), step):
            await self._add(second, unpublished[start : start + step])

    async def _add(self, second: int, unpublished: list[tuple[RateCount, int]]) -> None:
        commands: list[Command] = []
        for count, amount in unpublished:
            key = rate_key(count, second)
            ttl_ms = (count.window_s - 1) * 1000 + COUNTER_TTL_MS
            commands += [("INCRBY", key, amount), ("PEXPIRE", key, ttl_ms)]
        replies = await run_pipeline(self._redis, commands)
        for (count, _), total in zip(unpublished, replies[::COMMANDS_A_SUBJECT], strict=True):
            if isinstance(total, int):
                self._rates.update(count, total)
        raise_first(replies)

    async def _pause(self) -> None:
        most_s = self._interval_s if self._rates.has_shared() else IDLE_S
        await wait_debounced(self._clock.own, self._rates.grown, LEAST_PAUSE_S, most_s)
