"""What nodes leave that are killed, stopped, ended or cut off, and that it is announced once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from kit.clock import suspended
from kit.in_redis import NODES
from kit.node import eventually
from kit.presence import BY_LEASE_S, CAME, LEASE_S, WENT, running_nodes, watched_home


async def test_stopping_node_disconnects_all_its_devices() -> None:
    # None of this comes by the end of its lease.
    with running_nodes(2, presence_lease_s=600.0) as (_, nodes):
        async with watched_home(nodes) as watched:
            devices = [await watched.tenant.device(watched.home) for _ in range(120)]
            sockets = [await watched.connect(0, device) for device in devices]
            await watched.receive(len(devices))
            ending = asyncio.create_task(nodes[0].stop())
            for socket in sockets:
                await socket.receive()
                await socket.drop()
            received = await watched.receive(len(devices))
            assert await ending == 0
            assert Counter(received) == {(device.id, WENT): 1 for device in devices}
            await watched.nothing_more()
            assert await watched.tenant.redis.zcard(NODES) == 1


async def test_killed_node_is_announced_once_though_two_look_after_it() -> None:
    with running_nodes(3) as (_, nodes):
        async with watched_home(nodes) as watched:
            devices = [await watched.tenant.device(watched.home) for _ in range(120)]
            for device in devices:
                await watched.connect(0, device)
            stays = await watched.connect(1)
            await watched.receive(len(devices) + 1)
            # A node that has watched for a whole lease reaps others.
            await asyncio.sleep(LEASE_S)
            nodes[0].process.send_signal(signal.SIGKILL)
            await watched.becomes(False, BY_LEASE_S, devices[0])
            received = await watched.receive(len(devices))
            assert Counter(received) == {(device.id, WENT): 1 for device in devices}
            assert await watched.is_connected()
            # The other node had time to announce the same: what does not come cannot be awaited.
            await asyncio.sleep(LEASE_S)
            await watched.nothing_more()
            await stays.drop()
            assert await watched.receive(1) == [(watched.device.id, WENT)]


async def test_device_that_moves_to_another_node_stays_connected() -> None:
    with running_nodes(2) as (_, nodes):
        async with watched_home(nodes) as watched:
            await watched.connect(0)
            await watched.receive(1)
            # A node that has watched for a whole lease reaps others.
            await asyncio.sleep(LEASE_S)
            nodes[0].process.send_signal(signal.SIGKILL)
            socket = await watched.connect(1)
            await watched.is_held_by(2)
            slot = watched.tenant.slot

            async def is_reaped() -> bool:
                return (
                    await watched.tenant.redis.hget(slot.device_presence(watched.device.id), "holders")
                    == b"1"
                )

            await eventually(is_reaped, BY_LEASE_S)
            assert await watched.is_connected()
            await watched.nothing_more()
            await socket.drop()
            assert await watched.receive(1) == [(watched.device.id, WENT)]


async def test_without_nodes_no_device_is_connected() -> None:
    with running_nodes(1) as (_, nodes):
        async with watched_home(nodes) as watched:
            await watched.connect(0)
            await watched.becomes(True)
            nodes[0].process.send_signal(signal.SIGKILL)
            await watched.becomes(False, BY_LEASE_S)


async def test_node_that_was_away_for_longer_than_its_lease_begins_anew() -> None:
    with running_nodes(2) as (_, nodes):
        async with watched_home(nodes) as watched:
            async with await watched.connect(0) as socket:
                assert await watched.receive(1) == [(watched.device.id, CAME)]
                # A node that has watched for a whole lease reaps others.
                await asyncio.sleep(LEASE_S)
                with suspended(nodes[0].pid):
                    assert await watched.receive(1, BY_LEASE_S) == [(watched.device.id, WENT)]
                assert await watched.receive(1) == [(watched.device.id, CAME)]
                assert await watched.is_connected()
                assert await socket.is_alive()
            assert await watched.receive(1) == [(watched.device.id, WENT)]
            await watched.nothing_more()


async def test_outage_longer_than_leases_disconnects_no_device() -> None:
    with running_nodes(2) as (server, nodes):
        async with watched_home(nodes) as watched:
            async with await watched.connect(0):
                assert await watched.receive(1) == [(watched.device.id, CAME)]
                # A node that has watched for a whole lease reaps others.
                await asyncio.sleep(LEASE_S)
                server.hang()
                # Redis has to be away for longer than a lease.
                await asyncio.sleep(LEASE_S + 1)
                server.go_on()
                await watched.becomes(True)
                # Nodes have time for a false announcement: what does not come cannot be awaited.
                await asyncio.sleep(1.5 * LEASE_S)
                await watched.nothing_more()
                assert await watched.is_connected()
            assert await watched.receive(1) == [(watched.device.id, WENT)]
