"""The count of a second on one node: what it lets through, what it tells, what it forgets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import TooManyRequests
from homewire.limits.rates import Rates, rate_key
from homewire.settings import Settings
from kit.manual_clock import ManualClock

DEVICE = Principal(PrincipalKind.DEVICE, 1, 10, 0)
OTHER_DEVICE = Principal(PrincipalKind.DEVICE, 1, 11, 0)
USER = Principal(PrincipalKind.USER, 1, 12, 0)
PROJECT_KEY = Principal(PrincipalKind.PROJECT_KEY, 1, 13, 0)
ELSEWHERE = Principal(PrincipalKind.DEVICE, 2, 20, 0)
NOW_MS = 1_000_250


def rates_of(clock: ManualClock | None = None, **limits: Any) -> Rates:
    chosen: dict[str, Any] = {f"{name}_events_per_s": most for name, most in limits.items()}
    return Rates(Settings(**chosen), (clock or ManualClock(NOW_MS)).now_s)


def refusal(rates: Rates, principal: Principal, count: int = 1) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as refused:
        rates.take(principal, count)
    return refused.value


def published(rates: Rates) -> dict[str, int]:
    return {f"{use.kind} {use.id}": amount for use, amount in rates.take_unpublished()[1]}


def test_beyond_the_limit_is_refused_until_the_next_second() -> None:
    clock = ManualClock(NOW_MS)
    rates = rates_of(clock, device=5)
    for _ in range(5):
        rates.take(DEVICE)
    error = refusal(rates, DEVICE)
    assert (error.status, error.reason) == (429, "TOO_MANY_REQUESTS")
    assert error.data == {"limit": "device_events_per_s", "most": 5}
    assert error.headers == {"Retry-After": "1"}
    clock.ms = 1_000_990
    refusal(rates, DEVICE)
    clock.ms = 1_001_000
    rates.take(DEVICE, 5)
    refusal(rates, DEVICE)


def test_each_sender_has_its_own_limit() -> None:
    rates = rates_of(device=2, user=3, project_key=4, project=100)
    for principal, most in ((DEVICE, 2), (OTHER_DEVICE, 2), (USER, 3), (PROJECT_KEY, 4), (ELSEWHERE, 2)):
        for _ in range(most):
            rates.take(principal)
        setting = f"{principal.kind.replace(' ', '_')}_events_per_s"
        assert refusal(rates, principal).data == {"limit": setting, "most": most}


def test_project_is_limited_over_all_its_senders() -> None:
    rates = rates_of(device=100, project=10)
    rates.take(DEVICE, 6)
    rates.take(PROJECT_KEY, 4)
    assert refusal(rates, OTHER_DEVICE).data["limit"] == "project_events_per_s"
    rates.take(ELSEWHERE, 10)


@pytest.mark.parametrize("limits", [{"project_key": 10}, {"project": 10}])
def test_all_or_nothing(limits: dict[str, Any]) -> None:
    rates = rates_of(**limits)
    rates.take(PROJECT_KEY, 8)
    refusal(rates, PROJECT_KEY, 3)
    rates.take(PROJECT_KEY, 2)
    refusal(rates, PROJECT_KEY)


def test_refusal_by_project_does_not_count_for_sender() -> None:
    rates = rates_of(project_key=10, project=12)
    rates.take(DEVICE, 8)
    refusal(rates, PROJECT_KEY, 5)
    refusal(rates, PROJECT_KEY, 11)
    rates.take(PROJECT_KEY, 4)
    assert published(rates)["project key 13"] == 4


def test_zero_is_no_limit() -> None:
    rates = rates_of(device=0, project=0)
    for _ in range(3):
        rates.take(DEVICE, 10**9)
    assert published(rates) == {}


def test_count_above_a_sixteenth_is_published_once() -> None:
    rates = rates_of(device=160, project=100_000)
    rates.take(DEVICE, 10)
    rates.take(OTHER_DEVICE, 10)
    assert published(rates) == {}
    assert not rates.grown.is_set()
    rates.take(DEVICE)
    assert rates.grown.is_set()
    assert published(rates) == {"device 10": 11}
    assert published(rates) == {}
    rates.grown.clear()
    rates.take(DEVICE, 10)
    # In its time: the next exchange has it, but none is made for it.
    assert not rates.grown.is_set()
    assert published(rates) == {"device 10": 10}
    rates.take(DEVICE, 11)
    assert rates.grown.is_set()


def test_count_of_other_nodes_counts() -> None:
    rates = rates_of(device=160)
    rates.take(DEVICE, 20)
    ((use, _),) = rates.take_unpublished()[1]
    rates.update(use, 20 + 100)
    refusal(rates, DEVICE, 41)
    rates.take(DEVICE, 30)
    published(rates)
    # The total has all of both; the others' part did not grow.
    rates.update(use, 50 + 100)
    refusal(rates, DEVICE, 11)
    rates.take(DEVICE, 10)
    rates.update(use, 50 + 500)
    refusal(rates, DEVICE)


def test_nothing_of_a_second_is_left_in_the_next() -> None:
    clock = ManualClock(NOW_MS)
    rates = rates_of(clock, device=16)
    for device in range(1000):
        rates.take(Principal(PrincipalKind.DEVICE, 1_000_000 + device, device, 0), 2)
    assert len(rates) == 2000
    clock.turn(1)
    second, unpublished = rates.take_unpublished()
    assert (second, unpublished, len(rates)) == (1001, [], 0)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_clock_that_jumps_refuses_briefly(jump: float) -> None:
    clock = ManualClock(NOW_MS)
    rates = rates_of(clock, device=1)
    rates.take(DEVICE)
    clock.turn(jump)
    rates.take(DEVICE)


def test_refusals_are_counted_by_limit() -> None:
    refusals: Counter[str] = Counter()
    limits: Any = {"device_events_per_s": 1, "project_events_per_s": 2}
    rates = Rates(Settings(**limits), ManualClock(NOW_MS).now_s, refusals)
    assert set(refusals) == {
        f"{whose}_{unit}_per_s"
        for whose in ("device", "user", "project_key", "project")
        for unit in ("events", "event_bytes")
    } | {"idempotency_keys", "project_idempotency_keys"}
    rates.take(DEVICE)
    refusal(rates, DEVICE)
    refusal(rates, DEVICE)
    refusal(rates, USER, 2)
    assert refusals["device_events_per_s"] == 2
    assert refusals["project_events_per_s"] == 1


def test_bytes_are_counted_apart_and_a_body_is_taken_while_anything_is_left() -> None:
    clock = ManualClock(NOW_MS)
    limits: Any = {"device_event_bytes_per_s": 100, "project_event_bytes_per_s": 250}
    rates = Rates(Settings(**limits), clock.now_s)
    rates.take_bytes(DEVICE, 99)
    rates.take_bytes(DEVICE, 70)
    rates.take(DEVICE)
    with pytest.raises(TooManyRequests) as refused:
        rates.take_bytes(DEVICE, 1)
    assert refused.value.data == {"limit": "device_event_bytes_per_s", "most": 100}
    rates.take_bytes(USER, 81)
    with pytest.raises(TooManyRequests) as refused:
        rates.take_bytes(OTHER_DEVICE, 1)
    assert refused.value.data == {"limit": "project_event_bytes_per_s", "most": 250}
    assert published(rates) == {"device 10": 169, "project 1": 250}
    clock.turn(1)
    rates.take_bytes(OTHER_DEVICE, 1)


def test_events_and_bytes_of_one_subject_have_separate_counts() -> None:
    limits: Any = {"device_events_per_s": 16, "device_event_bytes_per_s": 160}
    rates = Rates(Settings(**limits), ManualClock(NOW_MS).now_s)
    rates.take(DEVICE, 2)
    rates.take_bytes(DEVICE, 20)
    second, unpublished = rates.take_unpublished()
    assert {rate_key(use, second): amount for use, amount in unpublished} == {
        "hw:{p1}:rate:device:10:1000": 2,
        "hw:{p1}:rate:event_bytes:device:10:1000": 20,
    }


def test_idempotency_keys_are_counted_for_as_long_as_they_are_remembered() -> None:
    clock = ManualClock(NOW_MS)
    limits: Any = {"idempotency_keys": 3, "project_idempotency_keys": 4, "idempotency_ttl_s": 600.0}
    rates = Rates(Settings(**limits), clock.now_s)
    rates.take_keys(DEVICE, 3)
    clock.turn(5)
    with pytest.raises(TooManyRequests) as refused:
        rates.take_keys(DEVICE)
    assert refused.value.data == {"limit": "idempotency_keys", "most": 3}
    # The window began at 600.
    assert refused.value.headers == {"Retry-After": "195"}
    rates.take_keys(USER)
    with pytest.raises(TooManyRequests) as refused:
        rates.take_keys(OTHER_DEVICE)
    assert refused.value.data == {"limit": "project_idempotency_keys", "most": 4}
    second, unpublished = rates.take_unpublished()
    assert {rate_key(use, second): amount for use, amount in unpublished} == {
        "hw:{p1}:rate:idempotency_keys:device:10:1": 3,
        "hw:{p1}:rate:idempotency_keys:user:12:1": 1,
        "hw:{p1}:rate:idempotency_keys:project:1": 4,
    }
    clock.ms = 1_200_000
    rates.take_keys(DEVICE)
