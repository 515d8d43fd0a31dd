"""The clock of a node, and those that tests turn."""

from __future__ import annotations

import asyncio

import pytest

from homewire.clock import MACHINE_CLOCK
from kit.manual_clock import ManualClock, TurnedClock

HOUR_S = 3600.0


@pytest.mark.parametrize("clock", [MACHINE_CLOCK, TurnedClock(), ManualClock()])
async def test_wait_ends_with_its_event(clock: TurnedClock) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, HOUR_S))
    event.set()
    await waiting


@pytest.mark.parametrize("clock", [MACHINE_CLOCK, TurnedClock()])
async def test_wait_without_its_event_ends_with_its_time(clock: TurnedClock) -> None:
    before = clock.monotonic()
    await clock.wait(asyncio.Event(), 0.01)
    assert clock.monotonic() >= before + 0.01


@pytest.mark.parametrize("make", [TurnedClock, ManualClock])
async def test_turned_clock_ends_the_waits_whose_time_has_come(make: type[TurnedClock]) -> None:
    clock = make()
    began_ms = clock.now_ms()
    short, long = (asyncio.create_task(clock.sleep(seconds)) for seconds in (HOUR_S, 2 * HOUR_S))
    await clock.begun(2)
    clock.turn(HOUR_S)
    await short
    assert not long.done()
    clock.turn(HOUR_S)
    await long
    assert clock.now_ms() >= began_ms + 2 * HOUR_S * 1000


@pytest.mark.parametrize("steps", range(6))
async def test_turn_as_a_wait_ends_by_itself_is_no_error(steps: int) -> None:
    """At each step of the event loop between the begin of the wait and its end."""
    clock = TurnedClock()
    waiting = asyncio.create_task(clock.wait(asyncio.Event(), 0.0))
    for _ in range(steps):
        await asyncio.sleep(0)
    clock.turn(1.0)
    await waiting
