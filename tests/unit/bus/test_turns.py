"""One turn serves all who asked before it began, and nobody who asked later."""

from __future__ import annotations

import asyncio

import pytest

from homewire.concurrency import SingleFlight

PROJECT = 7


class Work:
    """Turns that end when they are let."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.ends: asyncio.Queue[int | Exception] = asyncio.Queue()

    async def __call__(self, project_id: int) -> int:
        assert project_id == PROJECT
        self.begun.release()
        end = await self.ends.get()
        if isinstance(end, Exception):
            raise end
        return end


async def asked(turns: SingleFlight, count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(turns.take(PROJECT)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_who_asks_during_a_turn_is_served_by_the_next() -> None:
    work = Work()
    turns = SingleFlight(work, 5.0)
    first = await asked(turns, 2)
    await work.begun.acquire()
    later = await asked(turns, 3)
    work.ends.put_nowait(4)
    assert await asyncio.gather(*first) == [4, 0]
    await work.begun.acquire()
    assert not any(task.done() for task in later)
    work.ends.put_nowait(9)
    assert await asyncio.gather(*later) == [9, 0, 0]
    assert (len(turns), work.begun.locked()) == (0, True)


async def test_who_goes_away_disturbs_nobody() -> None:
    work = Work()
    turns = SingleFlight(work, 5.0)
    tasks = await asked(turns, 3)
    await work.begun.acquire()
    tasks[0].cancel()
    work.ends.put_nowait(1)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [1, 0]


async def test_a_failure_is_of_its_turn_alone() -> None:
    work = Work()
    turns = SingleFlight(work, 5.0)
    first = await asked(turns, 2)
    await work.begun.acquire()
    later = await asked(turns, 1)
    work.ends.put_nowait(OSError("no"))
    work.ends.put_nowait(2)
    assert [str(each) for each in await asyncio.gather(*first, return_exceptions=True)] == ["no", "no"]
    assert await later[0] == 2


async def test_a_turn_that_takes_too_long_is_given_up() -> None:
    turns = SingleFlight(Work(), 0.05)
    with pytest.raises(TimeoutError):
        await turns.take(PROJECT)
    assert len(turns) == 0
