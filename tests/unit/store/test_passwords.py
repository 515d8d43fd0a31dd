"""Passwords take a core each: of very many at once some are sent away at once, and the others not late."""

from __future__ import annotations

import asyncio
import os

import pytest

from homewire.errors import Unavailable
from homewire.store import passwords as passwords_module
from homewire.store.passwords import Passwords

WAITING = 4
"""Fewer than else, for each takes a core its time."""


@pytest.fixture(autouse=True)
def few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords_module, "WAITING", WAITING)


async def test_of_too_many_at_once_those_that_could_only_be_late_are_sent_away() -> None:
    passwords, most = Passwords(), (os.cpu_count() or 1) * (1 + WAITING)
    stored = await passwords.hash("correct horse")
    verifying = [asyncio.create_task(passwords.verify(stored, "correct horse")) for _ in range(most)]
    await asyncio.sleep(0)
    refused = await asyncio.gather(
        passwords.verify(stored, "correct horse"), passwords.hash("correct horse"), return_exceptions=True
    )
    assert [type(each) for each in refused] == [Unavailable, Unavailable]
    assert not any(task.done() for task in verifying[(os.cpu_count() or 1) :]), "they did not wait"
    assert all(await asyncio.gather(*verifying))
    assert await passwords.verify(stored, "correct horse")


async def test_who_gives_up_waiting_makes_room() -> None:
    passwords, most = Passwords(), (os.cpu_count() or 1) * (1 + WAITING)
    waiting = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(most)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await passwords.hash("correct horse")
