"""Which uses of sessions are noted, and what waits to be written."""

from __future__ import annotations

from itertools import pairwise

import pytest

from homewire.auth.models import Principal, PrincipalKind
from homewire.sessions import activity as room
from homewire.sessions.activity import MAX_TOUCHED, ActivityBuffer
from kit.manual_clock import ManualClock

MINUTE = 60_000


def principal(number: int, project: int = 7, *, session: bool = True) -> Principal:
    return Principal(
        PrincipalKind.USER, project, number, key_tag=number, session_id=f"{number:024x}" if session else ""
    )


def noted(uses: ActivityBuffer) -> list[tuple[int, list[int]]]:
    return [(project, [use.user_id for use in some]) for project, some in uses.take(9)]


def test_session_is_noted_once_a_minute() -> None:
    clock = ManualClock()
    uses = ActivityBuffer(MINUTE, clock)
    times = []
    for _ in range(1_000):
        uses.note(principal(1), "hash")
        times += [use.used_ms for _, some in uses.take(1) for use in some]
        clock.turn_ms(700)
    assert len(times) == 12
    gaps = {later - earlier for earlier, later in pairwise(times)}
    assert min(gaps) >= MINUTE
    assert max(gaps) < MINUTE + 700


def test_keys_that_are_no_sessions_are_not_noted() -> None:
    uses = ActivityBuffer(MINUTE)
    uses.note(principal(1, session=False), "hash")
    assert not uses.pending.is_set()
    assert uses.take(9) == []


def test_node_session_is_its_device_s() -> None:
    uses = ActivityBuffer(MINUTE)
    uses.note(Principal(PrincipalKind.DEVICE, 7, 5, key_tag=1, session_id="0" * 24), "hash")
    [(project, [use])] = uses.take(9)
    assert (project, use.user_id, use.device_id, use.key_hash) == (7, 0, 5, "hash")


def test_projects_take_turns() -> None:
    uses = ActivityBuffer(MINUTE)
    for number in range(MAX_TOUCHED + 5):
        uses.note(principal(number, project=1), "hash")
    uses.note(principal(1_000, project=2), "hash")
    assert uses.waiting() == MAX_TOUCHED + 6
    (first,) = uses.take(1)
    assert (first[0], len(first[1])) == (1, MAX_TOUCHED)
    assert noted(uses) == [(2, [1_000]), (1, list(range(MAX_TOUCHED, MAX_TOUCHED + 5)))]
    assert not uses.pending.is_set()
    assert uses.waiting() == 0


def test_failed_write_is_retried_unless_newer_exists() -> None:
    clock = ManualClock()
    uses = ActivityBuffer(MINUTE, clock)
    uses.note(principal(1), "hash")
    [(project, taken)] = uses.take(9)
    clock.turn_ms(MINUTE)
    uses.note(principal(1), "hash")
    uses.put_back([(project, taken)])
    [(_, [use])] = uses.take(9)
    assert use.used_ms == clock.ms
    uses.put_back([(project, [use])])
    assert uses.pending.is_set()
    assert noted(uses) == [(7, [1])]


def test_uses_beyond_bound_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "MAX_WAITING", 3)
    uses = ActivityBuffer(MINUTE)
    for number in range(1, 6):
        uses.note(principal(number), "hash")
    assert uses.metrics() == {
        "session_uses_waiting": 3, "session_uses_written": 0, "session_uses_dropped": 2,
    }  # fmt: skip
    assert noted(uses) == [(7, [1, 2, 3])]
    for number in range(1, 6):
        uses.note(principal(number), "hash")
    assert noted(uses) == [(7, [4, 5])]


def test_remembered_uses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_REMEMBERED", 10)
    uses = ActivityBuffer(MINUTE)
    for number in range(1, 26):
        uses.note(principal(number), "hash")
        uses.take(1)
    uses.note(principal(25), "hash")
    uses.note(principal(14), "hash")
    assert noted(uses) == []
    uses.note(principal(5), "hash")
    assert noted(uses) == [(7, [5])]
