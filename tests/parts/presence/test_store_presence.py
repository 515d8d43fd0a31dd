"""The record of who is connected, word by word: repeated, late, and about nodes that are dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire._core import event_route, shard_of
from homewire.access_changes.relay import Relay
from homewire.bus.shards import events_key
from homewire.devices.models import DevicePresence
from homewire.presence.publisher import Reaper
from homewire.presence.store import DEAD, MAX_NODES, PresenceChange
from homewire.projects.models import AccountSystem
from homewire.repositories import Store
from homewire.store.keys import NODES, ProjectSlot
from kit.manual_clock import ManualClock
from kit.node import eventually
from kit.redis_server import BusServer

LONG_MS = 600_000


class SensorAtHome:
    """A home with one device, and what was said of it in the home's shard."""

    def __init__(self, store: Store, redis: Redis, project: int, home: int, device: int) -> None:
        self.store, self.redis, self.project, self.home, self.device = store, redis, project, home, device

    async def say(self, boot: str, holds: bool, generation: int, time_ms: int = 1) -> None:
        await self.store.presence.publish(
            self.project, boot, [PresenceChange(self.device, holds, generation, time_ms)]
        )

    async def told(self) -> str:
        """A `+` for each time that the device came, a `-` for each that it went."""
        entries: Any = await self.redis.xrange(events_key(shard_of(self.home, 64)))
        routes = [event_route(fields[b"e"]) for _, fields in entries]
        names = [route[2] for route in routes if route is not None and route[:2] == (self.project, self.home)]
        return "".join({"_deviceConnected_": "+", "_deviceDisconnected_": "-"}[name] for name in names)

    async def presence(self) -> DevicePresence:
        return (await self.store.presence.of(self.project, [self.device]))[self.device]


@pytest.fixture
async def sensor(store: Store, redis_client: Redis) -> SensorAtHome:
    project = (await store.projects.create("presence", AccountSystem.EMAIL)).id
    user = await store.users.create(project, "Ada", email="ada@example.com")
    home = (await store.homes.create(project, "home", user.id)).id
    device, _, _ = await store.devices.create(project, "sensor", home_id=home)
    return SensorAtHome(store, redis_client, project, home, device.id)


async def test_word_that_is_repeated_or_late_changes_nothing(sensor: SensorAtHome) -> None:
    for generation in (1, 1, 2):
        await sensor.say("a", True, generation)
    assert await sensor.told() == "+"
    await sensor.say("b", True, 1)
    await sensor.say("b", False, 2)
    await sensor.say("b", True, 1)
    assert await sensor.told() == "+"
    await sensor.say("a", False, 3)
    assert await sensor.told() == "+-"
    for holds, generation in ((True, 2), (False, 3), (False, 1)):
        await sensor.say("a", holds, generation)
    assert await sensor.told() == "+-"
    await sensor.say("a", True, 4)
    assert await sensor.told() == "+-+"


async def test_late_word_changes_nothing_whatever_other_nodes_wrote_meanwhile(sensor: SensorAtHome) -> None:
    """A command that was not answered in time may reach Redis behind its repetition."""
    await sensor.say("a", True, 1)
    await sensor.say("b", True, 1)
    await sensor.say("a", False, 2)
    await sensor.say("b", False, 2)
    assert await sensor.told() == "+-"
    await sensor.say("a", True, 1)
    assert await sensor.told() == "+-"
    await sensor.say("b", True, 3)
    # Late, it must not take out a node that came again.
    await sensor.say("a", True, 3)
    await sensor.say("b", False, 4)
    await sensor.say("a", False, 2)
    assert await sensor.told() == "+-+"
    assert (await sensor.presence()).last_disconnect_ms == 1
    await sensor.say("a", False, 4)
    assert await sensor.told() == "+-+-"


async def test_only_last_nodes_of_device_are_kept(sensor: SensorAtHome) -> None:
    for number in range(MAX_NODES + 3):
        await sensor.say(f"node{number}", True, 1)
        await sensor.say(f"node{number}", False, 2)
    record: Any = await sensor.redis.hgetall(ProjectSlot(sensor.project).device_presence(sensor.device))
    last = [f",node{number}:2" for number in range(MAX_NODES + 2, 2, -1)]
    assert record[b"words"].decode() == "".join(last)
    assert set(record) == {b"words", b"holders", b"connected", b"disconnected"}


async def test_end_of_dead_node_is_recorded_once_and_holds(sensor: SensorAtHome) -> None:
    await sensor.say("a", True, 1, 5)
    for _ in range(3):
        await sensor.say("a", False, DEAD, 9)
    assert await sensor.told() == "+-"
    # Its last word arrives late.
    await sensor.say("a", True, 2, 7)
    assert await sensor.told() == "+-"
    assert await sensor.presence() == DevicePresence(False, 5, 9)
    assert await sensor.store.presence.of_node(sensor.project, "a") == []


async def test_record_counts_while_lease_lives(sensor: SensorAtHome) -> None:
    nodes = sensor.store.nodes
    assert await nodes.renew("short", LONG_MS, new=True)
    await sensor.say("short", True, 1, 5)

    async def is_over() -> bool:
        return "short" not in await nodes.alive()

    assert await sensor.presence() == DevicePresence(True, 5, None)
    assert await nodes.renew("short", 1)
    await eventually(is_over)
    assert await sensor.presence() == DevicePresence(False, 5, None)
    # No node declared it dead, so it may go on.
    assert await nodes.renew("short", LONG_MS)
    assert not await nodes.renew("unknown", LONG_MS)
    await nodes.remove("short")


@asynccontextmanager
async def reaping(store: Store) -> AsyncIterator[None]:
    """A reaper with leases of 1 s. It waits for the clock of the store behind each round."""
    task = asyncio.create_task(Reaper(store, 1.0).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_node_is_dead_before_all_had_a_lease_to_renew(sensor: SensorAtHome) -> None:
    nodes, clock = sensor.store.nodes, ManualClock()
    for boot in ("late", "dead"):
        assert await nodes.renew(boot, 1, new=True)
        await nodes.add_project(boot, sensor.project)
    await sensor.say("dead", True, 1)

    async def are_over() -> bool:
        return not {"late", "dead"} & await nodes.alive()

    await eventually(are_over)
    try:
        async with reaping(Store(sensor.redis, Relay(sensor.redis, 64), clock)):
            await clock.begun(1)
            clock.turn(0.875)
            await clock.begun(2)
            assert await nodes.renew("late", LONG_MS)
            clock.turn(0.125)
            await clock.begun(3)
        assert await sensor.told() == "+-"
        assert not await nodes.renew("dead", LONG_MS)
        assert await nodes.renew("late", LONG_MS)
    finally:
        await nodes.remove("late")
        await sensor.redis.zrem(NODES, "dead")


async def test_after_an_outage_no_node_is_dead_before_all_had_a_lease_to_renew(
    server: BusServer, redis: Redis
) -> None:
    """Nodes come back one after the other."""
    clock = ManualClock()
    store = Store(redis, Relay(redis, 64), clock)
    assert await store.nodes.renew("late", 1, new=True)
    assert await store.nodes.renew("dead", 1, new=True)
    async with reaping(store):
        await clock.begun(1)
        server.kill()
        clock.turn(0.5)
        await clock.begun(2)
        await asyncio.to_thread(server.start)
        clock.turn(1.5)
        await clock.begun(3)
        assert await store.nodes.renew("late", LONG_MS)
        clock.turn(1.0)
        await clock.begun(4)
        assert (await redis.zscore(NODES, "dead") or 0) < 0
        assert await store.nodes.renew("late", LONG_MS)


async def test_presence_of_moved_device_is_announced_in_its_home(sensor: SensorAtHome) -> None:
    await sensor.say("a", True, 1)
    await sensor.store.devices.move(sensor.project, sensor.device, None)
    await sensor.say("a", False, 2)
    assert await sensor.told() == "+"
    await sensor.say("a", True, 3)
    await sensor.store.devices.move(sensor.project, sensor.device, sensor.home)
    await sensor.say("a", False, 4)
    assert await sensor.told() == "+-"


async def test_of_a_device_that_is_gone_nothing_is_kept(sensor: SensorAtHome) -> None:
    await sensor.say("a", True, 1)
    await sensor.store.devices.delete(sensor.project, sensor.device)
    await sensor.say("a", False, 2)
    await sensor.say("a", True, 3)
    slot = ProjectSlot(sensor.project)
    assert await sensor.redis.exists(slot.device_presence(sensor.device), slot.node_devices("a")) == 0


async def test_deleted_project_announces_nothing_and_delays_no_other(
    sensor: SensorAtHome,
) -> None:
    nodes, store = sensor.store.nodes, sensor.store
    await nodes.renew("a", LONG_MS, new=True)
    await nodes.add_project("a", sensor.project)
    await sensor.say("a", True, 1)
    await nodes.release("a")
    # Its records are still there: it was not swept yet.
    await store.projects.delete(sensor.project)
    async with asyncio.timeout(20):
        await Reaper(store, 1).reap()
    assert await sensor.told() == "+"
    # (Others of this Redis are other tests'.)
    assert "a" not in await nodes.alive()
