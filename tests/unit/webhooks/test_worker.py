"""Pauses between tries, and the circuit breaker."""

from __future__ import annotations

from hypothesis import given, strategies

from homewire.webhooks.worker import Breaker, pause


@given(strategies.integers(1, 10_000))
def test_pauses_double_up_to_a_longest_and_differ(tries: int) -> None:
    whole = min(60.0, 0.5 * 2.0 ** (tries - 1)) if tries < 60 else 60.0
    pauses = [pause(tries, 0.5, 60.0) for _ in range(20)]
    assert all(whole / 2 <= each <= whole for each in pauses)
    assert len(set(pauses)) > 1


def test_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = Breaker(3, 10.0)
    for outcome in (breaker.failed(0.0), breaker.failed(0.0), breaker.taken(), breaker.failed(0.0)):
        assert not outcome
    assert breaker.lets_pass(0.0)
    assert not breaker.failed(0.0)
    assert breaker.failed(0.0)
    assert not breaker.is_closed
    assert not breaker.lets_pass(9.9)


def test_one_probe_at_a_time_decides() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert breaker.lets_pass(10.0)
    assert not breaker.lets_pass(10.0), "a second while the probe is under way"
    assert breaker.failed(10.0)
    assert breaker.open_until == 30.0, "twice as long"
    assert not breaker.lets_pass(29.9)
    assert breaker.lets_pass(30.0)
    assert breaker.taken()
    assert breaker.is_closed
    assert breaker.lets_pass(30.0)
    assert breaker.lets_pass(30.0)


def test_calls_under_way_do_not_prolong_open_circuit() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert not breaker.failed(5.0)
    assert breaker.open_until == 10.0


def test_it_opens_for_sixteen_times_its_pause_at_most() -> None:
    breaker, now = Breaker(1, 10.0), 0.0
    breaker.failed(now)
    for _ in range(100):
        now = breaker.open_until
        assert breaker.lets_pass(now)
        breaker.failed(now)
    assert breaker.open_until - now == 160.0


def test_probe_without_an_outcome_is_tried_again() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert breaker.lets_pass(10.0)
    breaker.unknown()
    assert breaker.lets_pass(10.0)


def test_circuit_opened_by_another_node() -> None:
    breaker = Breaker(5, 10.0)
    breaker.open_for(100.0, 7.0)
    assert not breaker.lets_pass(106.9)
    assert breaker.lets_pass(107.0)


def test_circuit_opened_by_node_with_wrong_clock_closes_in_time() -> None:
    breaker = Breaker(3, 10.0)
    breaker.open_for(100.0, 3600.0)
    assert not breaker.lets_pass(259.9)
    assert breaker.lets_pass(260.0)
