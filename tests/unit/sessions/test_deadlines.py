"""When keys of open sockets are past their end, against a naive model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from homewire.sessions.activity import SessionDeadline
from homewire.sessions.deadlines import HORIZON_MS, Deadlines, SocketKey
from kit.manual_clock import ManualClock

NOW = 1_000_000


def key(number: int) -> SocketKey:
    return SocketKey(1, number, number)


def made() -> tuple[ManualClock, Deadlines]:
    clock = ManualClock(NOW)
    return clock, Deadlines(clock)


def test_key_is_due_when_its_end_has_come_and_only_once() -> None:
    clock, deadlines = made()
    deadlines.observe(key(1), SessionDeadline(NOW + 10, NOW + 10))
    clock.ms += 9
    assert deadlines.due() == []
    clock.ms += 1
    assert deadlines.due() == [(key(1), SessionDeadline(NOW + 10, NOW + 10))]
    assert deadlines.due() == []
    assert len(deadlines) == 0


def test_one_that_slid_is_due_later() -> None:
    clock, deadlines = made()
    deadlines.observe(key(1), SessionDeadline(NOW + 10, 0))
    deadlines.update_if_known(key(1), SessionDeadline(NOW + 30, 0))
    clock.ms += 20
    assert deadlines.due() == []
    clock.ms += 10
    assert deadlines.due() == [(key(1), SessionDeadline(NOW + 30, 0))]


def test_deadline_moved_to_new_generation_is_not_due_in_old_one() -> None:
    clock, deadlines = made()
    deadlines.observe(key(1), SessionDeadline(NOW + 10, 0))
    deadlines.begin_generation()
    deadlines.observe(key(1), SessionDeadline(NOW + 30, 0))
    clock.ms += 10
    assert deadlines.due() == []


def test_far_deadlines_cost_nothing_and_moved_ones_are_forgotten() -> None:
    clock, deadlines = made()
    deadlines.observe(key(1), SessionDeadline(NOW + HORIZON_MS + 1, 0))
    assert len(deadlines) == 0
    deadlines.observe(key(2), SessionDeadline(NOW + 10, 0))
    deadlines.begin_generation()
    deadlines.observe(key(2), SessionDeadline(NOW + HORIZON_MS + 1, 0))
    assert len(deadlines) == 0
    clock.ms += 10
    assert deadlines.due() == []


def test_key_without_sockets_is_not_learned_of_and_forgotten_after_two_looks() -> None:
    clock, deadlines = made()
    deadlines.update_if_known(key(1), SessionDeadline(NOW + 10, 0))
    assert len(deadlines) == 0
    deadlines.observe(key(1), SessionDeadline(NOW + 10, 0))
    deadlines.begin_generation()
    assert len(deadlines) == 1
    deadlines.begin_generation()
    assert len(deadlines) == 0
    clock.ms += 10
    assert deadlines.due() == []


def test_one_that_does_not_expire_is_never_due() -> None:
    clock, deadlines = made()
    deadlines.observe(key(1), SessionDeadline(0, 0))
    clock.ms *= 1000
    assert deadlines.due() == []


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 60), st.sampled_from(["see", "turn", "wait"])),
        max_size=80,
    )
)
def test_exactly_unmoved_deadlines_are_due(steps: list[tuple[int, int, str]]) -> None:
    """A model: per key the latest end that was seen, and how many looks began since."""
    clock, deadlines = made()
    model: dict[SocketKey, tuple[int, int]] = {}
    rest_until: int | None = None
    for number, time, step in steps:
        if step == "see":
            expires = clock.ms + time
            # Ends only slide.
            expires = max(expires, model.get(key(number), (0, 0))[0])
            deadlines.observe(key(number), SessionDeadline(expires, 0))
            model[key(number)] = expires, 0
        elif step == "turn":
            deadlines.begin_generation()
            model = {each: (end, looks + 1) for each, (end, looks) in model.items() if looks == 0}
        else:
            clock.ms += time
            due = {each for each, (end, _) in model.items() if end <= clock.ms}
            assert sorted(each for each, _ in deadlines.due()) == sorted(due)
            model = {each: value for each, value in model.items() if each not in due}
        # Who looks at what is due, and then rests until the next or something sooner, misses none.
        if step == "wait" or deadlines.sooner.is_set():
            deadlines.sooner.clear()
            rest_until = deadlines.next_ms()
        if model:
            assert rest_until is not None
            assert rest_until <= min(end for end, _ in model.values())
