"""Connections at the handshake: the core's count, what others hold, and how long that is believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from homewire._core import Core
from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import TooManyRequests
from homewire.limits.connections import (
    NEVER,
    ConnectionLimits,
    Elsewhere,
    Lease,
    Limit,
    Subject,
    held_key,
    lease_text,
    network_of,
    parse_lease,
)
from homewire.settings import Settings
from kit.manual_clock import ManualClock

USER = Principal(PrincipalKind.USER, 1, 10, 0)
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


def connect(admission: ConnectionLimits, principal: Principal = USER, address: str | None = HERE) -> int:
    """As the gateway does: check, reserve."""
    admission.check(principal, address)
    kind, project, account = principal.kind.value, principal.project_id, principal.id
    return admission.core.reserve(kind, project, account, 0, "homes", [1], [], address=address)


def refusal(
    admission: ConnectionLimits, principal: Principal = USER, address: str | None = HERE
) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as refused:
        admission.check(principal, address)
    return refused.value


def others_hold(admission: ConnectionLimits, subject: Subject, count: int, lease_ms: int = 1000) -> None:
    text = lease_text(Lease(count, NOW_MS + lease_ms)).encode()
    admission.elsewhere.learn(subject, {b"another": text}, NOW_MS)


@pytest.mark.parametrize(
    ("limit", "stranger"),
    [
        ("user", Principal(PrincipalKind.USER, 1, 99, 0)),
        ("project", Principal(PrincipalKind.USER, 2, 10, 0)),
    ],
)
def test_burst_ends_at_the_limit_and_others_go_on(core: Core, limit: str, stranger: Principal) -> None:
    admission = admission_of(core, **{limit: 50})
    for _ in range(50):
        connect(admission)
    error = refusal(admission)
    assert error.status == 429
    assert error.data == {"limit": f"{limit}_connections", "most": 50}
    assert int(error.headers["Retry-After"]) > 0
    connect(admission, stranger)


@pytest.mark.parametrize(
    ("limit", "principal"), [("user", USER), ("device", DEVICE), ("project", USER), ("address", USER)]
)
def test_each_refused_connection_is_counted_by_its_limit(
    core: Core, limit: str, principal: Principal
) -> None:
    refusals: Counter[str] = Counter()
    chosen: dict[str, Any] = UNLIMITED | {f"{limit}_connections": 1}
    admission = ConnectionLimits(core, Settings(**chosen), refusals, clock=ManualClock(NOW_MS))
    connect(admission, principal)
    for _ in range(3):
        refusal(admission, principal)
    assert +refusals == {f"{limit}_connections": 3}


def test_device_and_an_address_have_limits_too(core: Core) -> None:
    admission = admission_of(core, device=2, address=4)
    connect(admission, DEVICE)
    connect(admission, DEVICE)
    assert refusal(admission, DEVICE).data["limit"] == "device_connections"
    connect(admission)
    connect(admission)
    assert refusal(admission).data["limit"] == "address_connections"
    connect(admission, USER, "192.0.2.2")
    connect(admission, USER, None)


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
    admission = ConnectionLimits(core, Settings(**chosen), refusals, clock=ManualClock(NOW_MS))
    names = [f"{number}{'x' * 250}" for number in range(1_000)]

    def listen() -> int:
        admission.check(USER, HERE)
        return core.reserve("user", 1, 10, 0, "entities", [1], names)

    # Each takes some 800 KB, as far as such a filter takes memory at all.
    first, second = listen(), listen()
    error = refusal(admission)
    assert error.status == 429
    assert error.data == {"limit": setting, "most": 1_000_000}
    assert refusals[setting] == 1
    connect(admission, stranger)
    # What a connection held is given back with it.
    for each in (first, second):
        core.abandon(each)
    while core.connection_counts("user", 1, 10, None)[3]:
        pass
    connect(admission)


def test_zero_is_no_limit(core: Core) -> None:
    admission = admission_of(core)
    for _ in range(200):
        connect(admission)
    assert admission.to_share() == {}


def test_connections_of_others_count_from_a_sixteenth_on(core: Core) -> None:
    admission = admission_of(core, user=160)
    others_hold(admission, SUBJECT, 145)
    for _ in range(15):
        connect(admission)
    assert refusal(admission).data["limit"] == "user_connections"
    assert admission.asked == {SUBJECT}
    assert admission.to_share() == {SUBJECT: 15}
    others_hold(admission, SUBJECT, 100)
    connect(admission)


def test_single_connection_of_ten_is_not_shared(core: Core) -> None:
    admission = admission_of(core, device=10)
    connect(admission, DEVICE)
    assert admission.to_share() == {}
    assert not admission.grown.is_set()
    connect(admission, DEVICE)
    assert admission.grown.is_set()
    assert admission.to_share() == {("device", 1, "11"): 2}


@pytest.mark.parametrize(
    ("most", "share_above"), [(0, NEVER), (1, 0), (7, 0), (8, 1), (10, 1), (100, 6), (100_000, 6250)]
)
def test_sixteenth(most: int, share_above: int) -> None:
    assert Limit("x", most).share_above == share_above


def test_lease_that_is_over_does_not_count_and_its_field_goes() -> None:
    clock = ManualClock()
    elsewhere = Elsewhere(b"me", clock)
    fields = {
        b"me": b"70 9999999",
        b"alive": b"5 1000001",
        b"dead": b"7 1000000",
        b"garbage": b"-3 x",
        b"more garbage": "٣ 9999999".encode(),
    }
    assert sorted(elsewhere.learn(SUBJECT, fields, NOW_MS)) == [b"dead", b"garbage", b"more garbage"]
    assert elsewhere.count(SUBJECT) == 5
    # Nobody had to be asked again for this.
    clock.seconds += 0.002
    assert elsewhere.count(SUBJECT) == 0


@pytest.mark.parametrize("step_ms", [-3_600_000, 3_600_000])
def test_seen_lease_ends_in_time_when_redis_clock_is_stepped(step_ms: int) -> None:
    clock = ManualClock()
    elsewhere = Elsewhere(b"me", clock)
    fields = {b"another": lease_text(Lease(5, NOW_MS + 30_000)).encode()}
    assert elsewhere.learn(SUBJECT, fields, NOW_MS) == []
    clock.seconds += 29.0
    assert elsewhere.learn(SUBJECT, fields, NOW_MS + step_ms) == []
    assert elsewhere.count(SUBJECT) == 5
    clock.seconds += 1.5
    assert elsewhere.count(SUBJECT) == 0
    assert elsewhere.learn(SUBJECT, fields, NOW_MS + step_ms) == [b"another"]


def test_subject_no_longer_shared_is_forgotten() -> None:
    elsewhere = Elsewhere(b"me", ManualClock())
    subjects: list[Subject] = [("user", 1, str(user)) for user in range(100)]
    for subject in subjects:
        elsewhere.learn(subject, {b"another": b"5 9999999"}, NOW_MS)
    elsewhere.keep(subjects[:1])
    assert len(elsewhere) == 1
    assert elsewhere.count(subjects[0]) == 5
    assert elsewhere.count(subjects[1]) == 0


def test_lease_text_is_read_as_it_was_written() -> None:
    assert parse_lease(lease_text(Lease(3, 12)).encode()) == Lease(3, 12)
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
    core.reserve("user", 1, 10, 0, "homes", [1], [], address=address)
    assert core.connection_counts("user", 1, 10, address)[:3] == (1, 1, 1)
    named = [name for kind, _, name, _ in core.connections_above(NEVER, NEVER, NEVER, 0) if kind == "address"]
    assert named == [network_of(address)]
