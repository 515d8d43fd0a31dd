"""A device is connected while it holds a command WebSocket, on whatever node; its home hears of it once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from homewire.store.database import wall_clock_ms
from homewire.store.keys import ProjectSlot
from kit.client import Socket
from kit.node import NodeProcess, eventually
from kit.presence import CAME, WENT, World, running_nodes, world_of
from kit.redis_server import BusServer

Nodes = tuple[BusServer, Sequence[NodeProcess]]


@pytest.fixture(scope="module")
def pair() -> Iterator[Nodes]:
    # Nobody dies here, and a busy machine must not make it seem so. Nor is anybody too many who comes again
    # before a busy node saw that it went.
    with running_nodes(2, presence_lease_s=30.0, device_connections=0) as running:
        yield running


@pytest.fixture
async def world(pair: Nodes) -> AsyncIterator[World]:
    async with world_of(pair[1]) as made:
        yield made


async def closed(socket: Socket) -> None:
    await socket.drop()


async def test_a_device_comes_and_goes(world: World) -> None:
    before = round(time.time() * 1000)
    assert not await world.is_connected()
    async with await world.connect():
        event = await world.listener.receive_json()
        assert event == {
            "eventType": CAME,
            "timestamp": event["timestamp"],
            "homeId": world.home,
            "originDeviceId": world.device.id,
            "originDeviceClass": "sensor",
        }
        assert await world.is_connected()
    assert await world.receive(1) == [(world.device.id, WENT)]
    presence = (await world.tenant.store.presence.of(world.tenant.project, [world.device.id]))[
        world.device.id
    ]
    assert not presence.connected
    assert presence.last_connect_ms is not None
    assert presence.last_disconnect_ms is not None
    assert before <= presence.last_connect_ms <= presence.last_disconnect_ms <= round(time.time() * 1000)


async def test_the_first_socket_and_the_last_count(world: World) -> None:
    """Also on different nodes, and whichever of them ends first."""
    for order in [(0, 1, 2), (2, 1, 0), (1, 0, 2)]:
        sockets = [await world.connect(0), await world.connect(1), await world.connect(0)]
        assert await world.receive(1) == [(world.device.id, CAME)]
        await world.is_held_by(2)
        for number in order[:-1]:
            await closed(sockets[number])
        await world.nothing_more()
        assert await world.is_connected()
        await closed(sockets[order[-1]])
        assert await world.receive(1) == [(world.device.id, WENT)]
        await world.nothing_more()


async def test_a_device_in_no_home_is_connected_and_nobody_hears(world: World) -> None:
    stray = await world.tenant.device(None)
    socket = await world.connect(device=stray)
    await world.becomes(True, device=stray)
    await world.tenant.store.devices.move(world.tenant.project, stray.id, world.home)
    await world.nothing_more()
    await closed(socket)
    assert await world.receive(1) == [(stray.id, WENT)]


async def test_a_user_at_the_other_websocket_is_no_device(world: World) -> None:
    assert not await world.tenant.redis.exists(
        ProjectSlot(world.tenant.project).device_presence(world.owner.id)
    )


async def test_what_comes_and_goes_again_and_again_is_told_by_turns(world: World) -> None:
    for _ in range(20):
        await closed(await world.connect())
    socket = await world.connect()
    await world.becomes(True)
    received: list[str] = []
    began_ms = wall_clock_ms()
    await closed(socket)

    async def is_over() -> bool:
        # That it is not connected may still be said of one of those before.
        presence = await world.presence()
        return not presence.connected and (presence.last_disconnect_ms or 0) >= began_ms

    await eventually(is_over)
    # What the record says is in the shards once it left the outbox, and stands there in front of this.
    await world.tenant.announced()
    async with world.nodes[-1].client() as http:
        headers = {"Authorization": world.tenant.key}
        async with http.put(
            f"/homes/{world.home}/event", json={"eventType": "end"}, headers=headers
        ) as answer:
            assert answer.status == 204
    while (name := await world.listener.receive_type()) != "end":
        received.append(name)
    assert received == [CAME, WENT] * (len(received) // 2)
    assert len(received) >= 2


async def test_a_deleted_device_leaves_no_record(world: World) -> None:
    async with await world.connect() as socket:
        assert await world.receive(1) == [(world.device.id, CAME)]
        await world.tenant.store.devices.delete(world.tenant.project, world.device.id)
        assert (await socket.receive()).close_code == 4501
    slot = ProjectSlot(world.tenant.project)

    async def is_gone() -> bool:
        left = [key async for key in world.tenant.redis.scan_iter(slot.prefix + "device:*")]
        held = [key async for key in world.tenant.redis.scan_iter(slot.prefix + "holder:*")]
        return not left and not held

    await eventually(is_gone)
    await world.nothing_more()


async def test_many_at_once_are_told_once_each(world: World) -> None:
    devices = [await world.tenant.device(world.home) for _ in range(100)]
    sockets = await asyncio.gather(
        *(world.connect(number % 2, device) for number, device in enumerate(devices))
    )
    received = await world.receive(len(devices))
    assert Counter(received) == {(device.id, CAME): 1 for device in devices}
    await asyncio.gather(*(socket.drop() for socket in sockets))
    received = await world.receive(len(devices))
    assert Counter(received) == {(device.id, WENT): 1 for device in devices}
    await world.nothing_more()
