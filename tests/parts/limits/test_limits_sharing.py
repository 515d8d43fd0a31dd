"""Counts over several nodes on one Redis: the exchange itself, its keys, and a Redis that goes away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire._core import Core, Topic
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.subscription import Subscription
from homewire.errors import TooManyRequests
from homewire.limits.connections import ConnectionLimits, ConnectionSharing
from homewire.limits.rates import BYTES, EVENTS, KEYS, PROJECT, SETTINGS, Rates, RateSharing
from homewire.limits.sharing import SharedClock
from homewire.parts import Limits
from homewire.redis.connect import connect
from homewire.settings import Settings
from kit.manual_clock import TurnedClock
from kit.node import eventually
from kit.redis_server import BusServer, not_cancelled, running_server

SECOND = 1000
ADDRESS = "192.0.2.77"
LIMITS = Settings(
    device_events_per_s=160,
    user_connections=32,
    project_connections=0,
    address_connections=0,
    connection_lease_s=30,
)


class RateNode:
    """One node's rates. Its second never ends, so that nothing here depends on the time of day."""

    def __init__(self, redis: Redis, limits: Settings = LIMITS) -> None:
        self.rates = Rates(limits, lambda: float(SECOND))
        self.sharing = RateSharing(redis, self.rates, SharedClock(redis))

    def accepts(self, sender: Principal, count: int) -> bool:
        return accepts(self.rates, sender, count)


def accepts(rates: Rates, sender: Principal, count: int) -> bool:
    try:
        rates.take(sender, count)
    except TooManyRequests:
        return False
    return True


class TurnedTime(SharedClock):
    """A time that nobody but the test sets: it does not follow Redis' clock back."""

    async def synchronise(self) -> None:
        pass


class HolderNode:
    """One node's connections, with a real core."""

    def __init__(
        self, redis: Redis, core: Core, limits: Settings = LIMITS, shared: type[SharedClock] = SharedClock
    ) -> None:
        self.clock = TurnedClock()
        self.core = core
        self.connection_limits = ConnectionLimits(core, limits, clock=self.clock)
        self.sharing = ConnectionSharing(redis, self.connection_limits, shared(redis, self.clock))

    def open(self, principal: Principal, most: int, address: str = ADDRESS) -> list[int]:
        """As many of `most` connections as are admitted."""
        ids: list[int] = []
        with suppress(TooManyRequests):
            for _ in range(most):
                self.connection_limits.check(principal, address)
                ids.append(reserve(self.core, principal, address))
        return ids


def reserve(core: Core, principal: Principal, address: str = ADDRESS) -> int:
    return core.reserve(principal, Subscription((Topic.Home(1),)), address)


@contextmanager
def running_core() -> Iterator[Core]:
    core = Core(reservation_ms=60_000)
    try:
        yield core
    finally:
        core.stop(1001, "", 0)


@pytest.fixture
async def project(redis_client: Redis) -> int:
    """A project of this test's own, with an id that no real one on this Redis has."""
    return 1_000_000_000 + int(await redis_client.incr("test:projects"))


@pytest.fixture
def device(project: int) -> Principal:
    return Principal(PrincipalKind.DEVICE, project, 1_000_000 + project, 0)


@pytest.fixture
def user(project: int) -> Principal:
    return Principal(PrincipalKind.USER, project, 1_000_000 + project, 0)


async def test_sum_of_two_nodes_is_held_to_the_limit(redis_client: Redis, device: Principal) -> None:
    one, two = RateNode(redis_client), RateNode(redis_client)
    assert one.accepts(device, 100)
    await one.sharing.share()
    assert two.accepts(device, 11)
    await two.sharing.share()
    assert not two.accepts(device, 50)
    assert two.accepts(device, 49)
    await two.sharing.share()
    # It has learned of the 11 and the 49 only with its own next word.
    assert one.accepts(device, 1)
    await one.sharing.share()
    assert not one.accepts(device, 1)
    # A third one may use its sixteenth, and no more.
    three = RateNode(redis_client)
    assert three.accepts(device, 11)
    await three.sharing.share()
    assert not three.accepts(device, 1)


@pytest.mark.parametrize("unit", SETTINGS)
@pytest.mark.parametrize(
    "kind", [PrincipalKind.DEVICE, PrincipalKind.USER, PrincipalKind.PROJECT_KEY, PROJECT]
)
async def test_each_rate_is_shared_by_two_nodes(
    redis_client: Redis, project: int, unit: str, kind: str
) -> None:
    """Events, bytes and Idempotency-Keys, each of a sender and of a project."""
    chosen: dict[str, Any] = {setting: 0 for settings in SETTINGS.values() for setting in settings.values()}
    limits = Settings(**{**chosen, SETTINGS[unit][kind]: 160})
    one, two = RateNode(redis_client, limits), RateNode(redis_client, limits)
    sender_kind = PrincipalKind.DEVICE if kind == PROJECT else PrincipalKind(kind)
    sender = Principal(sender_kind, project, 1_000_000 + project, 0)
    # Of a project another one, at the other node.
    other = Principal(sender_kind, project, 2_000_000 + project, 0) if kind == PROJECT else sender

    def take(node: RateNode, account: Principal, count: int) -> None:
        {EVENTS: node.rates.take, BYTES: node.rates.take_bytes, KEYS: node.rates.take_keys}[unit](
            account, count
        )

    take(one, sender, 149)
    await one.sharing.share()
    take(two, other, 11)
    await two.sharing.share()
    with pytest.raises(TooManyRequests) as refused:
        take(two, other, 1)
    assert refused.value.data == {"limit": SETTINGS[unit][kind], "most": 160}


async def test_use_near_limit_wakes_sharing(
    redis_client: Redis, device: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homewire.limits.rates.IDLE_S", 3600)
    node = RateNode(redis_client)
    await node.sharing.share()
    running = asyncio.create_task(node.sharing.run())
    await asyncio.sleep(0)
    key = f"hw:{{p{device.project_id}}}:rate:device:{device.id}:{SECOND}"
    for count, published in ((11, b"11"), (1, b"12")):
        assert node.accepts(device, count)

        async def is_published(published: bytes = published) -> bool:
            return await redis_client.get(key) == published

        await eventually(is_published)
    running.cancel()


async def test_use_below_a_sixteenth_is_not_sent_to_redis(redis_client: Redis, device: Principal) -> None:
    node = RateNode(redis_client)
    assert node.accepts(device, 10)
    await node.sharing.share()
    assert await redis_client.keys(f"hw:{{p{device.project_id}}}:*") == []
    assert node.accepts(device, 1)
    await node.sharing.share()
    (key,) = await redis_client.keys(f"hw:{{p{device.project_id}}}:*")
    assert key == f"hw:{{p{device.project_id}}}:rate:device:{device.id}:{SECOND}".encode()
    assert await redis_client.get(key) == b"11"
    assert 0 < await redis_client.pttl(key) <= 5_000


async def test_more_subjects_than_one_trip_takes(redis_client: Redis, project: int) -> None:
    devices = [Principal(PrincipalKind.DEVICE, project, 10_000_000 + n, 0) for n in range(1_200)]
    one, two = RateNode(redis_client), RateNode(redis_client)
    for node in (one, two):
        for each in devices:
            assert node.accepts(each, 50)
        await node.sharing.share()
    assert [each.id for each in devices if two.accepts(each, 61)] == []
    assert [each.id for each in devices if not two.accepts(each, 60)] == []


async def test_clock_is_redis_own(redis_client: Redis) -> None:
    clock = SharedClock(redis_client)
    clock._offset += 3600
    await clock.synchronise()
    seconds, microseconds = await redis_client.time()
    # It was an hour off. How exact it is depends on the time that Redis takes to answer.
    assert abs(clock.now() - (seconds + microseconds / 1e6)) < 1800


async def test_connections_of_two_nodes_are_held_to_the_limit(redis_client: Redis, user: Principal) -> None:
    with running_core() as here, running_core() as there:
        one, two = HolderNode(redis_client, here), HolderNode(redis_client, there)
        held = one.open(user, 20)
        assert len(held) == 20
        await one.sharing.share()
        assert len(two.open(user, 3)) == 3
        assert two.connection_limits.grown.is_set()
        await two.sharing.share()
        assert len(two.open(user, 20)) == 9
        for connection in held[:5]:
            here.abandon(connection)
        await eventually(lambda: true_when(here.connection_counts(user, None)[0] == 15))
        # Nobody there held more since, but somebody was refused: that is why it looks again.
        await one.sharing.share()
        await two.sharing.share()
        assert len(two.open(user, 20)) == 5


@pytest.mark.parametrize("limit", ["user", "device", "project", "address"])
async def test_each_limit_of_connections_is_shared_by_two_nodes(
    redis_client: Redis, project: int, limit: str
) -> None:
    chosen: dict[str, Any] = {"user_connections": 0, "device_connections": 0, f"{limit}_connections": 32}
    limits = replace(LIMITS, **chosen)
    kind = PrincipalKind.DEVICE if limit == "device" else PrincipalKind.USER
    here_as, there_as = (Principal(kind, project, 1_000_000 + project, 0) for _ in range(2))
    if limit in ("project", "address"):
        there_as = Principal(kind, project, 2_000_000 + project, 0)
    address = f"2001:db8:{project % 65_536:x}::1"
    with running_core() as here, running_core() as there:
        one = HolderNode(redis_client, here, limits)
        two = HolderNode(redis_client, there, limits)
        assert len(one.open(here_as, 20, address)) == 20
        await one.sharing.share()
        assert len(two.open(there_as, 3, address)) == 3
        await two.sharing.share()
        assert len(two.open(there_as, 20, address)) == 9


async def true_when(holds: bool) -> bool:
    return holds


async def test_dead_node_counts_until_its_lease_ends(redis_client: Redis, user: Principal) -> None:
    key, lease_s = f"hw:{{p{user.project_id}}}:held:user:{user.id}", LIMITS.connection_lease_s
    with running_core() as here, running_core() as there:
        dead, alive = HolderNode(redis_client, here), HolderNode(redis_client, there)
        dead.open(user, 29)
        await dead.sharing.share()
        assert 0 < await redis_client.pttl(key) <= lease_s * 1000
        alive.open(user, 3)
        await alive.sharing.share()
        assert alive.open(user, 1) == []
        alive.clock.turn(2 * lease_s)
        assert len(alive.open(user, 1)) == 1
        await alive.sharing.share()
        assert list(await redis_client.hgetall(key)) == [alive.connection_limits.boot_id.encode()]


async def test_living_node_renews_its_lease(redis_client: Redis, user: Principal) -> None:
    with running_core() as here, running_core() as there:
        idle, busy = (HolderNode(redis_client, core, shared=TurnedTime) for core in (here, there))
        idle.open(user, 29)
        await idle.sharing.share()
        busy.open(user, 3)
        for _ in range(4):
            for node in (idle, busy):
                await node.sharing.share()
                node.clock.turn(LIMITS.connection_lease_s / 2)
            assert busy.open(user, 1) == []


async def test_stopping_node_removes_its_counts(redis_client: Redis, user: Principal) -> None:
    key = f"hw:{{p{user.project_id}}}:held:user:{user.id}"
    with running_core() as core:
        node = HolderNode(redis_client, core)
        held = node.open(user, 4)
        await node.sharing.share()
        assert await redis_client.exists(key)
        for connection in held[:3]:
            core.abandon(connection)
        await eventually(lambda: true_when(core.connection_counts(user, None)[0] == 1))
        await node.sharing.share()
        assert not await redis_client.exists(key)
        assert node.connection_limits.published == {}
        node.open(user, 4)
        await node.sharing.share()
        await node.sharing.release()
        assert not await redis_client.exists(key)


@pytest.fixture
def server() -> Iterator[BusServer]:
    with running_server() as running:
        yield running


async def test_without_redis_each_node_limits_by_its_own_count(server: BusServer) -> None:
    user = Principal(PrincipalKind.USER, 1, 10, 0)
    sender = Principal(PrincipalKind.DEVICE, 1, 11, 0)
    redis = connect(server.url)
    with running_core() as core:
        limits = Limits(redis, core, LIMITS, Counter())
        task = asyncio.create_task(limits.run())

        async def shared() -> bool:
            return limits.connections.published == {("user", 1, "10"): 20}

        for _ in range(20):
            limits.connections.check(user, ADDRESS)
            reserve(core, user)
        await eventually(shared)
        server.kill()
        with suppress(TooManyRequests):
            for _ in range(1_000):
                limits.connections.check(user, ADDRESS)
                reserve(core, user)
        assert core.connection_counts(user, None)[0] == 32
        # Whether or not the second turns in between.
        assert not all(accepts(limits.rates, sender, 100) for _ in range(1_000))
        assert not task.done()
        server.start()
        client = server.client()

        async def shared_again() -> bool:
            fields = await client.hgetall("hw:{p1}:held:user:10")
            return [text.split()[0] for text in fields.values()] == [b"32"]

        await eventually(shared_again, within=20)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert await client.hgetall("hw:{p1}:held:user:10") == {}
        await client.aclose()
    await redis.aclose()


async def test_it_ends_when_it_is_cancelled_wherever_it_was(server: BusServer) -> None:
    # Two for each of them, and one that is not waited for.
    redis = connect(server.url, max_connections=64)
    with running_core() as core:
        for _ in range(4):
            reserve(core, Principal(PrincipalKind.USER, 1, 10, 0))
        # Long leases: only what each says at its end can remove its field.
        settings = replace(LIMITS, connection_lease_s=600)
        tasks = [asyncio.create_task(Limits(redis, core, settings, Counter()).run()) for _ in range(20)]
        assert await not_cancelled(redis, tasks) == 0
        assert await redis.hgetall("hw:{p1}:held:user:10") == {}
    await redis.aclose()
