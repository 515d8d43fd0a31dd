"""Connections at the handshake: the core's count, what others hold, and how long that is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from homewire._core import Core, Topic
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.subscription import Subscription
from homewire.errors import TooManyRequests
from homewire.limits.connections import (
    NEVER,
    ConnectionLimits,
    CountLease,
    Limit,
    OtherNodes,
    Subject,
    held_key,
    lease_text,
    network_of,
    parse_lease,
)
from homewire.settings import Settings
from kit.manual_clock import ManualClock

USER = Principal(PrincipalKind.USER, 1, 10, 0)
ONE_HOME = Subscription((Topic.Home(1),))
DEVICE = Principal(PrincipalKind.DEVICE, 1, 11, 0)
HERE = "192.0.2.1"
SUBJECT: Subject = ("user", 1, "10")
NOW_MS = 1_000_000
UNLIMITED = {f"{whose}_connections": 0 for whose in ("user", "device", "project", "address")}


@pytest.fixture
def core() -> Iterator[Core]:
    # Undoes no reservation by itself while a test runs.
    running = Core(reservation_ms=600_000)
    yield running
    running.stop(1001, "", 0)


def admission_of(core: Core, **limits: int) -> ConnectionLimits:
    chosen: dict[str, Any] = UNLIMITED | {f"{whose}_connections": most for whose, most in limits.items()}
    return ConnectionLimits(core, Settings(**chosen), clock=ManualClock(NOW_MS))


def connect(
    connection_limits: ConnectionLimits, principal: Principal = USER, address: str | None = HERE
) -> int:
    """As the gateway does: check, reserve."""
    connection_limits.check(principal, address)
    return connection_limits.core.reserve(principal, ONE_HOME, address)


def refusal(
    connection_limits: ConnectionLimits, principal: Principal = USER, address: str | None = HERE
) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as refused:
        connection_limits.check(principal, address)
    return refused.value


def others_hold(
    connection_limits: ConnectionLimits, subject: Subject, count: int, lease_ms: int = 1000
) -> None:
    text = lease_text(CountLease(count, NOW_MS + lease_ms)).encode()
    connection_limits.other_nodes.update(subject, {b"another": text}, NOW_MS)


@pytest.mark.parametrize(
    ("limit", "stranger"),
    [
        ("user", Principal(PrincipalKind.USER, 1, 99, 0)),
        ("project", Principal(PrincipalKind.USER, 2, 10, 0)),
    ],
)
def test_burst_ends_at_the_limit_and_others_go_on(core: Core, limit: str, stranger: Principal) -> None:
    connection_limits = admission_of(core, **{limit: 50})
    for _ in range(50):
        connect(connection_limits)
    error = refusal(connection_limits)
    assert error.status == 429
    assert error.data == {"limit": f"{limit}_connections", "most": 50}
    assert int(error.headers["Retry-After"]) > 0
    connect(connection_limits, stranger)


@pytest.mark.parametrize(
    ("limit", "principal"), [("user", USER), ("device", DEVICE), ("project", USER), ("address", USER)]
)
def test_each_refused_connection_is_counted_by_its_limit(
    core: Core, limit: str, principal: Principal
) -> None:
    refusals: Counter[str] = Counter()
    chosen: dict[str, Any] = UNLIMITED | {f"{limit}_connections": 1}
    connection_limits = ConnectionLimits(core, Settings(**chosen), refusals, clock=ManualClock(NOW_MS))
    connect(connection_limits, principal)
    for _ in range(3):
        refusal(connection_limits, principal)
    assert +refusals == {f"{limit}_connections": 3}


def test_device_and_an_address_have_limits_too(core: Core) -> None:
    connection_limits = admission_of(core, device=2, address=4)
    connect(connection_limits, DEVICE)
    connect(connection_limits, DEVICE)
    assert refusal(connection_limits, DEVICE).data["limit"] == "device_connections"
    connect(connection_limits)
    connect(connection_limits)
    assert refusal(connection_limits).data["limit"] == "address_connections"
    connect(connection_limits, USER, "192.0.2.2")
    connect(connection_limits, USER, None)


@pytest.mark.parametrize(
    ("setting", "stranger"),
    [
        ("user_topic_bytes", Principal(PrincipalKind.USER, 1, 99, 0)),
        ("project_topic_bytes", Principal(PrincipalKind.USER, 2, 10, 0)),
    ],
)
def test_topics_have_a_limit_in_bytes(core: Core, setting: str, stranger: Principal) -> None:
    no_limits = {**UNLIMITED, "user_topic_bytes": 0, "project_topic_bytes": 0}
    chosen: dict[str, Any] = no_limits | {setting: 1_000_000}
    refusals: Counter[str] = Counter()
    connection_limits = ConnectionLimits(core, Settings(**chosen), refusals, clock=ManualClock(NOW_MS))
    names = [f"{number}{'x' * 250}" for number in range(1_000)]

    def listen() -> int:
        connection_limits.check(USER, HERE)
        return core.reserve(USER, Subscription(tuple([Topic.Entity(name, 1) for name in names])))

    # Each takes some 800 KB, as far as such a filter takes memory at all.
    first, second = listen(), listen()
    error = refusal(connection_limits)
    assert error.status == 429
    assert error.data == {"limit": setting, "most": 1_000_000}
    assert refusals[setting] == 1
    connect(connection_limits, stranger)
    # What a connection held is given back with it.
    for each in (first, second):
        core.abandon(each)
    while core.connection_counts(USER, None)[3]:
        pass
    connect(connection_limits)


def test_zero_is_no_limit(core: Core) -> None:
    connection_limits = admission_of(core)
    for _ in range(200):
        connect(connection_limits)
    assert connection_limits.to_share() == {}


def test_connections_of_others_count_from_a_sixteenth_on(core: Core) -> None:
    connection_limits = admission_of(core, user=160)
    others_hold(connection_limits, SUBJECT, 145)
    for _ in range(15):
        connect(connection_limits)
    assert refusal(connection_limits).data["limit"] == "user_connections"
    assert connection_limits.to_refresh == {SUBJECT}
    assert connection_limits.to_share() == {SUBJECT: 15}
    others_hold(connection_limits, SUBJECT, 100)
    connect(connection_limits)


def test_single_connection_of_ten_is_not_shared(core: Core) -> None:
    connection_limits = admission_of(core, device=10)
    connect(connection_limits, DEVICE)
    assert connection_limits.to_share() == {}
    assert not connection_limits.grown.is_set()
    connect(connection_limits, DEVICE)
    assert connection_limits.grown.is_set()
    assert connection_limits.to_share() == {("device", 1, "11"): 2}


@pytest.mark.parametrize(
    ("most", "share_above"), [(0, NEVER), (1, 0), (7, 0), (8, 1), (10, 1), (100, 6), (100_000, 6250)]
)
def test_sixteenth(most: int, share_above: int) -> None:
    assert Limit("x", most).share_above == share_above


def test_lease_that_is_over_does_not_count_and_its_field_goes() -> None:
    clock = ManualClock()
    other_nodes = OtherNodes(b"me", clock)
    fields = {
        b"me": b"70 9999999",
        b"alive": b"5 1000001",
        b"dead": b"7 1000000",
        b"garbage": b"-3 x",
        b"more garbage": "٣ 9999999".encode(),
    }
    assert sorted(other_nodes.update(SUBJECT, fields, NOW_MS)) == [b"dead", b"garbage", b"more garbage"]
    assert other_nodes.count(SUBJECT) == 5
    # Nobody had to be asked again for this.
    clock.seconds += 0.002
    assert other_nodes.count(SUBJECT) == 0


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
def test_seen_lease_ends_in_time_when_redis_clock_is_stepped(step_ms: int) -> None:
    clock = ManualClock()
    other_nodes = OtherNodes(b"me", clock)
    fields = {b"another": lease_text(CountLease(5, NOW_MS + 30_000)).encode()}
    assert other_nodes.update(SUBJECT, fields, NOW_MS) == []
    clock.seconds += 29.0
    assert other_nodes.update(SUBJECT, fields, NOW_MS + step_ms) == []
    assert other_nodes.count(SUBJECT) == 5
    clock.seconds += 1.5
    assert other_nodes.count(SUBJECT) == 0
    assert other_nodes.update(SUBJECT, fields, NOW_MS + step_ms) == [b"another"]


def test_subject_no_longer_shared_is_forgotten() -> None:
    other_nodes = OtherNodes(b"me", ManualClock())
    subjects: list[Subject] = [("user", 1, str(user)) for user in range(100)]
    for subject in subjects:
        other_nodes.update(subject, {b"another": b"5 9999999"}, NOW_MS)
    other_nodes.retain(subjects[:1])
    assert len(other_nodes) == 1
    assert other_nodes.count(subjects[0]) == 5
    assert other_nodes.count(subjects[1]) == 0


def test_lease_text_is_read_as_it_was_written() -> None:
    assert parse_lease(lease_text(CountLease(3, 12)).encode()) == CountLease(3, 12)
    assert [parse_lease(text) for text in (b"", b"3", b"3 ", b"a b", b"3 4 5")] == [None] * 5


@pytest.mark.parametrize(
    ("subject", "key"),
    [
        (("user", 1, "10"), "hw:{p1}:held:user:10"),
        (("project", 1, ""), "hw:{p1}:held:project"),
        (("address", 0, "2001:db8::"), "hw:{a2001:db8::}:held"),
    ],
)
def test_keys_lie_in_the_slot_of_their_project_or_address(subject: Subject, key: str) -> None:
    assert held_key(subject) == key


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8:0:7:1:2:3:4", "::1", "fe80::1%eth0"]
)
def test_python_and_the_core_name_an_address_alike(core: Core, address: str) -> None:
    core.reserve(USER, ONE_HOME, address)
    assert core.connection_counts(USER, address)[:3] == (1, 1, 1)
    named = [name for kind, _, name, _ in core.connections_above(NEVER, NEVER, NEVER, 0) if kind == "address"]
    assert named == [network_of(address)]
