"""Token buckets: what comes at once, what comes evenly, which they forget."""

from __future__ import annotations

from collections import Counter

import pytest

from homewire.errors import TooManyRequests
from homewire.limits.buckets import BURST_S, MOST_CHARGED_S, Buckets
from kit.manual_clock import ManualClock


def taken(buckets: Buckets, subject: str, most: int) -> int:
    """How many of `most` in a row are let through."""
    for number in range(most):
        try:
            buckets.take(subject)
        except TooManyRequests:
            return number
    return most


@pytest.mark.parametrize("per_second", [1, 3, 7, 1000])
def test_burst_and_then_the_rate(per_second: int) -> None:
    clock = ManualClock()
    buckets = Buckets("limit", per_second, clock=clock)
    burst = round(BURST_S * per_second)
    assert taken(buckets, "a", 10 * burst) == burst
    # Others have buckets of their own.
    assert taken(buckets, "b", 10 * burst) == burst
    for _ in range(20):
        clock.seconds += 1.0
        assert taken(buckets, "a", 10 * burst) == per_second


def test_refusal_names_the_setting_and_when_to_come_back() -> None:
    clock, refusals = ManualClock(), Counter[str]()
    buckets = Buckets("limit", 2, refusals, clock)
    assert refusals == {"limit": 0}
    assert taken(buckets, "a", 100) == 10
    with pytest.raises(TooManyRequests) as refused:
        buckets.take("a")
    assert refused.value.data == {"limit": "limit", "most": 2}
    assert refused.value.headers == {"Retry-After": "1"}
    assert refusals == {"limit": 2}
    clock.seconds += 1.0
    buckets.take("a")


def test_zero_is_no_limit() -> None:
    buckets = Buckets("limit", 0)
    assert taken(buckets, "a", 10_000) == 10_000
    assert len(buckets) == 0


def test_idle_buckets_are_forgotten_without_gain() -> None:
    clock = ManualClock()
    buckets = Buckets("limit", 10, clock=clock)
    for number in range(1000):
        buckets.take(f"once {number}")
    for _ in range(100):
        taken(buckets, "often", 1000)
        clock.seconds += 0.5
    assert len(buckets) <= 2
    # Over 50 s no more than the rate came, beside the first burst.
    clock.seconds += 0.5
    assert taken(buckets, "often", 1000) == 10


def test_charged_subject_waits_for_its_next_token() -> None:
    clock = ManualClock()
    buckets = Buckets("limit", 10, clock=clock)
    buckets.charge("a", 2.0)
    assert taken(buckets, "a", 100) == 30
    # "b" was not charged.
    assert taken(buckets, "b", 100) == 50


@pytest.mark.parametrize("charges", [1, 100])
def test_charges_never_delay_longer_than_their_bound(charges: int) -> None:
    clock = ManualClock()
    buckets = Buckets("limit", 10, clock=clock)
    taken(buckets, "a", 100)
    for _ in range(charges):
        buckets.charge("a", 1.0)
    waited = min(float(charges), MOST_CHARGED_S)
    clock.seconds += waited
    assert taken(buckets, "a", 100) == 0
    clock.seconds += 1.0
    assert taken(buckets, "a", 100) == 10


def test_charge_is_remembered_until_it_is_paid() -> None:
    clock = ManualClock()
    buckets = Buckets("limit", 10, clock=clock)
    for _ in range(100):
        buckets.charge("a", 1.0)
    for _ in range(int(MOST_CHARGED_S)):
        assert taken(buckets, "a", 1) == 0
        buckets.take("others")
        clock.seconds += 0.99


def test_charge_without_a_limit_has_no_effect() -> None:
    buckets = Buckets("limit", 0)
    buckets.charge("a", 100.0)
    buckets.take("a")
    assert len(buckets) == 0
