"""Turns: how many are taken at once, in what order waiting work gets them, and what is given up."""

from __future__ import annotations

import asyncio

import pytest

from homewire.errors import Unavailable
from homewire.server.turns import Turns

HOUR = 3600.0


def turns_of(most: int, queue: int = 100, wait_s: float = HOUR) -> Turns:
    return Turns(most, queue=queue, wait_s=wait_s, refusal=lambda: Unavailable(limit="test"))


async def settled() -> None:
    """Every task has run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_subject_has_at_most_its_turns_and_others_have_their_own() -> None:
    turns, order = turns_of(2), list[str]()
    release = asyncio.Event()

    async def work(subject: str, name: str) -> None:
        async with turns.of(subject):
            order.append(name)
            await release.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work("a", f"a{number}"))
        group.create_task(work("b", "b0"))
        await settled()
        assert order == ["a0", "a1", "b0"]
        assert (turns.taken, turns.waiting) == (3, 3)
        release.set()
    assert order == ["a0", "a1", "b0", "a2", "a3", "a4"]
    assert (turns.taken, turns.waiting, turns.delayed, turns.refused) == (0, 0, 3, 0)


async def test_full_queue_refuses_at_once() -> None:
    turns = turns_of(1, queue=1)
    await turns.take("a")
    second = asyncio.create_task(turns.take("a"))
    await settled()
    with pytest.raises(Unavailable):
        await turns.take("a")
    await turns.take("b")
    assert turns.refused == 1
    turns.give_back("a")
    await second


async def test_waiting_too_long_is_refused_and_takes_no_turn() -> None:
    turns = turns_of(1, wait_s=0.0)
    await turns.take("a")
    with pytest.raises(Unavailable):
        await turns.take("a")
    turns.give_back("a")
    await turns.take("a")
    assert (turns.taken, turns.waiting, turns.refused) == (1, 0, 1)


@pytest.mark.parametrize("given_before", [False, True])
async def test_cancelled_waiter_leaves_its_turn_to_the_next(given_before: bool) -> None:
    turns = turns_of(1)
    await turns.take("a")
    cancelled, third = asyncio.create_task(turns.take("a")), asyncio.create_task(turns.take("a"))
    await settled()
    if given_before:
        turns.give_back("a")
    cancelled.cancel()
    await settled()
    if not given_before:
        turns.give_back("a")
    await third
    assert cancelled.cancelled()
    turns.give_back("a")
    assert (turns.taken, turns.waiting) == (0, 0)


async def test_zero_is_no_limit() -> None:
    turns = turns_of(0)
    for _ in range(1000):
        await turns.take("a")
    assert turns.waiting == 0


async def test_turn_ends_early_when_its_work_takes_too_long() -> None:
    turns = Turns(1, queue=10, wait_s=HOUR, refusal=lambda: Unavailable(limit="test"), longest_s=0.0)
    async with turns.of("a"):
        # The first still works, and another one begins.
        await turns.take("a")
        assert turns.taken == 1
    assert turns.taken == 1
    turns.give_back("a")
    assert (turns.taken, turns.waiting) == (0, 0)
