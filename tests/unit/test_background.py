"""Rounds of work in the background."""

from __future__ import annotations

import asyncio

import pytest

from homewire.concurrency import run_when_signaled


async def test_what_could_not_be_done_is_tried_again_and_complained_of_once() -> None:
    something, ended = asyncio.Event(), asyncio.Event()
    outcomes, done = [False, False, True, True, False, True], list[str]()

    async def work() -> bool:
        could_be_done = outcomes.pop(0)
        done.append("done" if could_be_done else "tried")
        if not outcomes:
            something.clear()
            ended.set()
        return could_be_done

    rounds = asyncio.create_task(run_when_signaled(something, work, 0, lambda: done.append("complaint")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not done, "there was nothing to do yet"
    something.set()
    async with asyncio.timeout(20):
        await ended.wait()
    assert done == ["tried", "complaint", "tried", "done", "done", "tried", "complaint", "done"]
    rounds.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rounds
