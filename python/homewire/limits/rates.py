"""Events and bytes per second: this node's count of the running second, and what it knows of the others'.

A second is one of Redis' clock. Nothing of it is kept when the next begins. A request costs two
look-ups in a dict; Redis is `totals.py`'s business.

Events and bytes per second over all nodes: each adds its counts, and learns the totals by that.

One counter in Redis for each subject and second, `hw:{p<project>}:rate:<subject>:<second>` (and for bytes
`…:rate:event_bytes:<subject>:<second>`), in the project's slot. Ten exchanges a second at least while
somebody is near a limit, and one at once when another sixteenth of it was used; none at all while nobody is.
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
    COMMANDS_PER_TRIP,
    SIXTEENTH,
    Command,
    Seconds,
    SharedClock,
    machine_seconds,
    raise_first,
    repeat,
    trip,
)
from homewire.settings import Settings

RETRY_AFTER_S: Final = 1
"""When the next second has certainly begun."""
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
"""For events and for bytes the limit's setting by whose it is. Sessions of one user count together, as keys
of one device do."""


class Use:
    """What one subject sent in the running second, of events or of bytes."""

    __slots__ = (
        "fresh",
        "id",
        "kind",
        "left",
        "others",
        "project_id",
        "shared",
        "step",
        "told",
        "unit",
        "window_s",
    )

    def __init__(self, unit: str, window_s: int, kind: str, project_id: int, id: int, limit: float) -> None:
        self.unit = unit
        self.window_s = window_s
        self.kind = kind
        self.project_id = project_id
        self.id = id
        self.left = limit
        """What may still come, as far as this node knows; below 0 if others were faster."""
        self.fresh = 0
        """Accepted here and not told to the others yet."""
        self.told = 0
        self.others = 0
        self.step = math.inf if limit == math.inf else limit // SIXTEENTH
        self.shared = False


class Rates:
    """Counts what this node accepts, and refuses what is beyond a limit.

    `now` is Redis' (`SharedClock.now`); without one each node's own seconds count.
    """

    def __init__(
        self, settings: Settings, now: Seconds = machine_seconds, refusals: Counter[str] | None = None
    ) -> None:
        self._now = now
        self.crowded: Final = asyncio.Event()
        """Set when another sixteenth of a limit was used here: the other nodes should learn it now."""
        counted: Counter[str] = Counter() if refusals is None else refusals
        self._meters: Final = tuple(
            Meter(unit, window_s, settings, now, counted, self.crowded)
            for unit, window_s in ((EVENTS, 1), (BYTES, 1), (KEYS, math.ceil(settings.idempotency_ttl_s)))
        )
        events, size, keys = self._meters
        self.take = events.take
        """Count `count` events or commands that `principal` sends, all of them or none.

        Raises TooManyRequests naming the setting, for the sender's own limit or its project's.
        """
        self.take_bytes = size.take
        """Count the bytes of a request that sends some, if anything of the limit is left. Raises
        TooManyRequests likewise."""
        self.take_keys = keys.take
        """Count Idempotency-Keys, each of which is remembered for `idempotency_ttl_s`, likewise; the limits
        are for as long."""

    def are_shared(self) -> bool:
        """Whether the others hear, in this second, of anything that is counted here."""
        return any(meter.are_shared() for meter in self._meters)

    def untold(self) -> tuple[int, list[tuple[Use, int]]]:
        """The running second, and what the others have not heard of it: the amount for each shared subject.

        From here on it counts as told: what becomes of the message is never certain, and saying it twice
        would refuse what is within the limit.
        """
        second = int(self._now())
        return second, [each for meter in self._meters for each in meter.untold(second)]

    @staticmethod
    def learn(use: Use, total: int) -> None:
        """All nodes together have told of `total`."""
        others = max(total - use.told, 0)
        use.left -= others - use.others
        use.others = others

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return sum(map(len, self._meters))


class Meter:
    """The counts of one unit, in windows of so many seconds."""

    def __init__(
        self,
        unit: str,
        window_s: int,
        settings: Settings,
        now: Seconds,
        refusals: Counter[str],
        crowded: asyncio.Event,
    ) -> None:
        self._unit = unit
        self._window_s = window_s
        # A body may have more bytes or keys than a limit: it is taken while anything is left.
        self._whole = unit == EVENTS
        self._now = now
        self._limits: dict[str, float] = {}
        for kind, setting in SETTINGS[unit].items():
            self._limits[kind] = getattr(settings, setting) or math.inf
        self._refusals = refusals
        self._refusals.update(dict.fromkeys(SETTINGS[unit].values(), 0))
        self._window = 0
        # By id alone: ids are unique in the deployment, whatever they are the id of.
        self._uses: dict[int, Use] = {}
        self._shared: list[Use] = []
        self._crowded = crowded

    def take(self, principal: Principal, count: int = 1) -> None:
        """See `Rates.take` and `Rates.take_bytes`."""
        window = int(self._now()) // self._window_s
        if window != self._window:
            self._begin(window)
        uses = self._uses
        own = uses.get(principal.id) or self._use(principal.kind, principal.project_id, principal.id)
        whole = uses.get(principal.project_id) or self._use(
            PROJECT, principal.project_id, principal.project_id
        )
        least = count if self._whole else 1
        if own.left < least:
            raise self._refused(own)
        if whole.left < least:
            raise self._refused(whole)
        own.left -= count
        own.fresh += count
        if own.fresh > own.step:
            self._share(own)
        whole.left -= count
        whole.fresh += count
        if whole.fresh > whole.step:
            self._share(whole)

    def are_shared(self) -> bool:
        """See `Rates.are_shared`."""
        return bool(self._shared)

    def untold(self, second: int) -> list[tuple[Use, int]]:
        """See `Rates.untold`."""
        window = second // self._window_s
        if window != self._window:
            self._begin(window)
        fresh = [(use, use.fresh) for use in self._shared if use.fresh]
        for use, amount in fresh:
            use.told += amount
            use.fresh = 0
        return fresh

    def __len__(self) -> int:
        """How many subjects are remembered."""
        return len(self._uses)

    def _begin(self, window: int) -> None:
        self._window = window
        self._uses = {}
        self._shared = []

    def _use(self, kind: str, project_id: int, id: int) -> Use:
        use = self._uses[id] = Use(self._unit, self._window_s, kind, project_id, id, self._limits[kind])
        return use

    def _share(self, use: Use) -> None:
        if not use.shared:
            use.shared = True
            self._shared.append(use)
        self._crowded.set()

    def _refused(self, use: Use) -> TooManyRequests:
        setting = SETTINGS[self._unit][use.kind]
        self._refusals[setting] += 1
        left_s = (self._window + 1) * self._window_s - int(self._now())
        return TooManyRequests(setting, max(left_s, RETRY_AFTER_S), most=int(self._limits[use.kind]))


INTERVAL_S: Final = 0.1
LEAST_PAUSE_S: Final = 0.01
REST_S: Final = 1.0
"""Between two exchanges while nobody is near a limit: who comes near one ends the rest."""
KEPT_MS: Final = 5_000
"""How long a second's counter outlives its last change; late nodes add to it, nobody reads it later."""
COMMANDS_A_SUBJECT: Final = 2


def rate_key(use: Use, second: int) -> str:
    """The counter of a subject in the window that a second is in."""
    unit = "" if use.unit == EVENTS else f"{use.unit}:"
    subject = PROJECT if use.kind == PROJECT else f"{use.kind.replace(' ', '-')}:{use.id}"
    return f"hw:{{p{use.project_id}}}:rate:{unit}{subject}:{second // use.window_s}"


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
        """One exchange, of what changed since the last. Raises RedisError, OSError."""
        await self._clock.synchronise()
        second, fresh = self._rates.untold()
        step = COMMANDS_PER_TRIP // COMMANDS_A_SUBJECT
        for start in range(0, len(fresh), step):
            await self._add(second, fresh[start : start + step])

    async def _add(self, second: int, fresh: list[tuple[Use, int]]) -> None:
        commands: list[Command] = []
        for use, amount in fresh:
            key = rate_key(use, second)
            commands += [("INCRBY", key, amount), ("PEXPIRE", key, (use.window_s - 1) * 1000 + KEPT_MS)]
        replies = await trip(self._redis, commands)
        for (use, _), total in zip(fresh, replies[::COMMANDS_A_SUBJECT], strict=True):
            if isinstance(total, int):
                self._rates.learn(use, total)
        raise_first(replies)

    async def _pause(self) -> None:
        most_s = self._interval_s if self._rates.are_shared() else REST_S
        await wait_debounced(self._clock.own, self._rates.crowded, LEAST_PAUSE_S, most_s)
