"""Events and bytes per second over all nodes: each adds its counts, and learns the totals by that.

One counter in Redis for each subject and second, `hw:{p<project>}:rate:<subject>:<second>` (and for bytes
`…:rate:event_bytes:<subject>:<second>`), in the project's slot. Ten exchanges a second at least while
somebody is near a limit, and one at once when another sixteenth of it was used; none at all while nobody is.
"""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis

from homewire.background import woken
from homewire.overload.rates import EVENTS, PROJECT, Rates, Use
from homewire.overload.sharing import COMMANDS_A_TRIP, Command, SharedClock, raise_first, repeat, trip

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
        step = COMMANDS_A_TRIP // COMMANDS_A_SUBJECT
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
        await woken(self._rates.crowded, LEAST_PAUSE_S, most_s)
