"""What is asserted of moments and times, on machines that stand still for some of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from kit.node import eventually
from kit.tenant import Tenant

ROUNDS: Final = 40
"""Of two things that are to meet in every order; as many more, up to MOST_ROUNDS, as it takes to see either
come first."""
MOST_ROUNDS: Final = 120


async def in_time(attempt: Callable[[], Awaitable[float]], within_s: float) -> None:
    """The quickest of three took less than so long: `attempt` answers how many seconds it took. A machine
    that stands still for a moment makes one of them late, a fault makes all of them."""
    took = [await attempt()]
    while took[-1] >= within_s and len(took) < 3:
        took.append(await attempt())
    assert took[-1] < within_s, took


def meetings() -> Iterator[tuple[float, float]]:
    """How many seconds to wait before the one thing, and before the other: each in turn is a little later
    than in the rounds before, until the other is over by then on the slowest of machines."""
    for number in range(MOST_ROUNDS):
        later = number**2 / 40_000
        yield (later, 0.0) if number % 2 else (0.0, later)


async def a_later_moment(tenant: Tenant) -> None:
    """Wait until it is later by Redis' clock: what has its time in ms from it came before or after now."""
    client: Any = tenant.redis
    began: tuple[int, int] = await client.time()

    async def is_later() -> bool:
        seconds, microseconds = await client.time()
        return bool((seconds, microseconds // 1000) > (began[0], began[1] // 1000))

    await eventually(is_later)
