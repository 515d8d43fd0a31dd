"""Passwords take a core each: logins go first, projects take turns, and of very many some are sent away."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter

import pytest

from homewire.errors import TooManyRequests, Unavailable
from homewire.logins import passwords as passwords_module
from homewire.logins.passwords import Lane, Passwords, usable_cores

MAX_WAITING = 4
"""Fewer than else, for each takes a core its time."""
PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords_module, "MAX_WAITING", MAX_WAITING)
    # A machine that stands still is no reason to send anybody away here.
    monkeypatch.setattr(passwords_module, "WAIT_S", 60.0)


def passwords_of(project_waiting: int = 0) -> tuple[Passwords, Counter[str]]:
    refusals: Counter[str] = Counter()
    return Passwords(project_waiting, refusals), refusals


async def test_requests_that_would_be_late_are_refused() -> None:
    cores = usable_cores()
    passwords, _ = passwords_of()
    stored = await passwords.hash(PASSWORD)
    verifying = [
        asyncio.create_task(passwords.verify(stored, PASSWORD)) for _ in range(cores * (1 + MAX_WAITING))
    ]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await passwords.verify(stored, PASSWORD)
    assert passwords.metrics() == {"passwords_refused": 1}
    assert not any(task.done() for task in verifying[cores:]), "they did not wait"
    assert all(await asyncio.gather(*verifying))
    assert await passwords.verify(stored, PASSWORD)


async def test_turn_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, _ = passwords_of()
    working = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(usable_cores())]
    await asyncio.sleep(0)
    monkeypatch.setattr(passwords_module, "WAIT_S", 0.0)
    with pytest.raises(Unavailable):
        await passwords.hash(PASSWORD)
    assert len(await asyncio.gather(*working)) == len(working)
    assert await passwords.hash(PASSWORD)


async def test_cancelled_waiter_makes_room() -> None:
    passwords, _ = passwords_of()
    max_attempts = usable_cores() * (1 + MAX_WAITING)
    waiting = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(max_attempts)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await passwords.hash(PASSWORD)


async def test_one_project_has_only_so_many_places_and_the_others_theirs() -> None:
    cores = usable_cores()
    passwords, refusals = passwords_of(project_waiting=2)
    flood = [asyncio.create_task(passwords.verify("", "x", project_id=1)) for _ in range(cores + 2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests) as refused:
        await passwords.verify("", "x", project_id=1)
    assert refused.value.data["limit"] == "project_passwords"
    assert refusals == {"project_passwords": 1}
    # Another lane, and another project, have places of their own.
    await passwords.hash(PASSWORD, 1, Lane.CHANGE)
    await passwords.verify("", "x", project_id=2)
    await asyncio.gather(*flood)


async def test_logins_go_before_changes_and_those_before_registrations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passwords_module, "usable_cores", lambda: 1)
    passwords, _ = passwords_of()
    done: list[str] = []

    async def turn(lane: Lane, project_id: int) -> None:
        if lane is Lane.LOGIN:
            await passwords.verify("", "x", project_id)
        else:
            await passwords.hash(PASSWORD, project_id, lane)
        done.append(f"{lane.value} {project_id}")

    first = asyncio.create_task(passwords.hash(PASSWORD))
    await asyncio.sleep(0)
    asked = [
        (Lane.REGISTRATION, 1),
        (Lane.CHANGE, 1),
        (Lane.LOGIN, 1), (Lane.LOGIN, 1), (Lane.LOGIN, 1),
        (Lane.LOGIN, 2),
    ]  # fmt: skip
    await asyncio.gather(first, *(turn(*each) for each in asked))
    # And the projects take turns, however many of one came first.
    assert done == ["login 1", "login 2", "login 1", "login 1", "change 1", "registration 1"]


@pytest.mark.parametrize(
    "typed", ["d\u00e9j\u00e0 vu!", "de\u0301ja\u0300 vu!"], ids=["composed", "decomposed"]
)
async def test_password_is_the_same_in_whatever_unicode_form_a_keyboard_sends_it(typed: str) -> None:
    passwords, _ = passwords_of()
    stored = await passwords.hash(typed)
    assert await passwords.verify(stored, "d\u00e9j\u00e0 vu!")
    assert await passwords.verify(stored, "de\u0301ja\u0300 vu!")
    assert not await passwords.verify(stored, "deja vu!")


async def test_hash_of_the_form_that_was_typed_is_still_taken() -> None:
    passwords, _ = passwords_of()
    typed = "de\u0301ja\u0300 vu!"
    stored = passwords_module._HASHER.hash(typed)
    assert await passwords.verify(stored, typed)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all threads of a process have one priority")
async def test_threads_that_hash_go_behind_the_event_loop() -> None:
    passwords = Passwords(0, Counter())
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert await passwords._in_turn(Lane.LOGIN, 0, lambda: os.getpriority(os.PRIO_PROCESS, 0)) > own
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
