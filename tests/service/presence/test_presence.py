"""A device is connected while it holds a command WebSocket, on every node; its home learns of it once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from kit.client import Socket
from kit.clock import now_ms
from kit.node import NodeProcess, eventually
from kit.presence import CAME, WENT, WatchedHome, running_nodes, watched_home
from kit.redis_server import BusServer

Nodes = tuple[BusServer, Sequence[NodeProcess]]


@pytest.fixture(scope="module")
def pair() -> Iterator[Nodes]:
    # Nobody dies here, and a busy machine must not make it seem so. Nor is anybody too many who comes again
    # before a busy node saw that it went.
    with running_nodes(2, presence_lease_s=30.0, device_connections=0) as running:
        yield running


@pytest.fixture
async def watched(pair: Nodes) -> AsyncIterator[WatchedHome]:
    async with watched_home(pair[1]) as made:
        yield made


async def closed(socket: Socket) -> None:
    await socket.drop()


async def test_device_connects_and_disconnects(watched: WatchedHome) -> None:
    before = round(time.time() * 1000)
    assert not await watched.is_connected()
    async with await watched.connect():
        event = await watched.listener.receive_json()
        assert event == {
            "eventType": CAME,
            "timestamp": event["timestamp"],
            "homeId": watched.home,
            "originDeviceId": watched.device.id,
            "originDeviceClass": "sensor",
        }
        assert await watched.is_connected()
    assert await watched.receive(1) == [(watched.device.id, WENT)]
    presence = (await watched.tenant.store.presence.of(watched.tenant.project, [watched.device.id]))[
        watched.device.id
    ]
    assert not presence.connected
    assert presence.last_connect_ms is not None
    assert presence.last_disconnect_ms is not None
    assert before <= presence.last_connect_ms <= presence.last_disconnect_ms <= round(time.time() * 1000)


async def test_first_socket_and_the_last_count(watched: WatchedHome) -> None:
    """Also on different nodes, and whichever of them ends first."""
    for order in [(0, 1, 2), (2, 1, 0), (1, 0, 2)]:
        sockets = [await watched.connect(0), await watched.connect(1), await watched.connect(0)]
        assert await watched.receive(1) == [(watched.device.id, CAME)]
        await watched.is_held_by(2)
        for number in order[:-1]:
            await closed(sockets[number])
        await watched.nothing_more()
        assert await watched.is_connected()
        await closed(sockets[order[-1]])
        assert await watched.receive(1) == [(watched.device.id, WENT)]
        await watched.nothing_more()


async def test_device_without_home_is_connected_and_sends_no_event(watched: WatchedHome) -> None:
    stray = await watched.tenant.device(None)
    socket = await watched.connect(device=stray)
    await watched.becomes(True, device=stray)
    await watched.tenant.store.devices.move(watched.tenant.project, stray.id, watched.home)
    await watched.nothing_more()
    await closed(socket)
    assert await watched.receive(1) == [(stray.id, WENT)]


async def test_user_at_the_other_websocket_is_no_device(watched: WatchedHome) -> None:
    assert not await watched.tenant.redis.exists(watched.tenant.slot.device_presence(watched.owner.id))


async def test_flapping_device_sends_alternating_events(watched: WatchedHome) -> None:
    for _ in range(20):
        await closed(await watched.connect())
    socket = await watched.connect()
    await watched.becomes(True)
    received: list[str] = []
    began_ms = now_ms()
    await closed(socket)

    async def is_over() -> bool:
        # That it is not connected may still be said of one of those before.
        presence = await watched.presence()
        return not presence.connected and (presence.last_disconnect_ms or 0) >= began_ms

    await eventually(is_over)
    # What the record says is in the shards once it left the outbox, and stands there in front of this.
    await watched.tenant.announced()
    async with watched.nodes[-1].client() as http:
        headers = {"Authorization": watched.tenant.key}
        async with http.put(
            f"/homes/{watched.home}/event", json={"eventType": "end"}, headers=headers
        ) as answer:
            assert answer.status == 204
    while (name := await watched.listener.receive_type()) != "end":
        received.append(name)
    assert received == [CAME, WENT] * (len(received) // 2)
    assert len(received) >= 2


async def test_deleted_device_leaves_no_record(watched: WatchedHome) -> None:
    async with await watched.connect() as socket:
        assert await watched.receive(1) == [(watched.device.id, CAME)]
        await watched.tenant.store.devices.delete(watched.tenant.project, watched.device.id)
        assert (await socket.receive()).close_code == 4501
    slot = watched.tenant.slot

    async def is_gone() -> bool:
        left = [key async for key in watched.tenant.redis.scan_iter(slot.prefix + "device:*")]
        held = [key async for key in watched.tenant.redis.scan_iter(slot.prefix + "holder:*")]
        return not left and not held

    await eventually(is_gone)
    await watched.nothing_more()


async def test_many_devices_at_once_are_announced_once_each(watched: WatchedHome) -> None:
    devices = [await watched.tenant.device(watched.home) for _ in range(100)]
    sockets = await asyncio.gather(
        *(watched.connect(number % 2, device) for number, device in enumerate(devices))
    )
    received = await watched.receive(len(devices))
    assert Counter(received) == {(device.id, CAME): 1 for device in devices}
    await asyncio.gather(*(socket.drop() for socket in sockets))
    received = await watched.receive(len(devices))
    assert Counter(received) == {(device.id, WENT): 1 for device in devices}
    await watched.nothing_more()
