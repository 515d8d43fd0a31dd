"""What Redis has lost or trimmed is noticed, by every node that may have missed it, and reported."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import orjson
import pytest

from kit.client import CLOSE, TEXT, Socket, listen
from kit.clock import suspended
from kit.in_redis import SHARDS, epoch_key, epoch_of, events_key, shard_of, stream_of
from kit.node import NodeProcess, eventually, running_node
from kit.redis_server import BusServer, running_server
from kit.tenant import Tenant, tenant_of

EVENTS = "/userSession/websocket"
RESYNC = 4002


@contextmanager
def stopped(node: NodeProcess) -> Iterator[None]:
    """The node reads nothing meanwhile."""
    with suspended(node.pid):
        yield


@contextmanager
def nodes(server: BusServer, count: int) -> Iterator[list[NodeProcess]]:
    with tempfile.TemporaryDirectory(prefix="hw-") as directory:
        if count == 0:
            yield []
            return
        data = Path(directory) / f"data{count}"
        with running_node(data, redis_url=server.url) as node, nodes(server, count - 1) as others:
            yield [node, *others]


@asynccontextmanager
async def two_listeners(tenant: Tenant, node: NodeProcess) -> AsyncIterator[tuple[list[int], list[Socket]]]:
    """Two users who share no shard, neither by themselves nor by their homes: homes and sockets."""
    async with AsyncExitStack() as stack:
        homes: list[int] = []
        sockets: list[Socket] = []
        taken: set[int] = set()
        while len(homes) < 2:
            user = await tenant.user()
            home = await tenant.home(user)
            shards = {shard_of(user.id), shard_of(home)}
            if taken & shards:
                continue
            taken |= shards
            homes.append(home)
            sockets.append(await stack.enter_async_context(await listen(node.url, EVENTS, user.key)))
        yield homes, sockets


async def received_until_resync(socket: Socket) -> list[str]:
    """The types of the events that come before the close frame."""
    received = []
    while (frame := await socket.receive_any()).opcode != CLOSE:
        if frame.opcode == TEXT:
            received.append(str(orjson.loads(frame.payload)["eventType"]))
    assert frame.close_code == RESYNC
    return received


async def is_logged(node: NodeProcess, words: str) -> bool:
    return words in node.log.read_text()


async def goes_on(tenant: Tenant, home: int, socket: Socket) -> None:
    await tenant.send({"homeId": home, "eventType": "goes on"})
    assert await socket.receive_type() == "goes on"


async def test_entries_trimmed_before_they_were_read_are_counted_and_their_listeners_resynced() -> None:
    with running_server() as server, nodes(server, 2) as (node, other):
        async with tenant_of(other) as tenant, two_listeners(tenant, node) as (homes, sockets):
            for home, socket in zip(homes, sockets, strict=True):
                await goes_on(tenant, home, socket)
            stream = stream_of(homes[0])
            with stopped(node):
                await tenant.send(*({"homeId": homes[0], "eventType": str(n)} for n in range(10)))
                assert await tenant.redis.xtrim(stream, maxlen=3, approximate=False) > 7
            # Redis had answered the node's waiting XREAD with what came first.
            received = await received_until_resync(sockets[0])
            lost = 7 - len([each for each in received if int(each) < 7])
            await goes_on(tenant, homes[1], sockets[1])
            metrics = await node.metrics()
            assert (metrics["trimmed_unread_total"], metrics["history_lost_total"]) == (lost, 0)
            await eventually(lambda: is_logged(node, f"{lost} trimmed before they were read"))
            assert (await other.metrics())["trimmed_unread_total"] == 0


async def test_entries_trimmed_after_reading_are_no_gap() -> None:
    with running_server() as server, nodes(server, 1) as (node,):
        async with tenant_of(node) as tenant, two_listeners(tenant, node) as (homes, sockets):
            for _ in range(20):
                await goes_on(tenant, homes[0], sockets[0])
            await tenant.redis.xtrim(stream_of(homes[0]), maxlen=0, approximate=False)
            server.kill()
            server.start()  # a reconnect looks at every shard
            await reconnected(node)
            await goes_on(tenant, homes[0], sockets[0])
            await goes_on(tenant, homes[1], sockets[1])
            metrics = await node.metrics()
            assert (metrics["trimmed_unread_total"], metrics["history_lost_total"]) == (0, 0)


async def reconnected(node: NodeProcess) -> None:
    async def again() -> bool:
        metrics = await node.metrics()
        return metrics["tail_reconnects_total"] > 0 and metrics["bus_reconnects_total"] > 0

    await eventually(again, 20)


def newest_aof(server: BusServer) -> Path:
    """The file that commands are appended to."""
    return next(server.directory.glob("appendonlydir/*.incr.aof"))


def cut(server: BusServer, size: int) -> None:
    with newest_aof(server).open("r+b") as file:
        file.truncate(size)


async def test_append_only_file_that_was_cut_back_is_noticed() -> None:
    with running_server() as server, nodes(server, 1) as (node,):
        async with tenant_of(node) as tenant, two_listeners(tenant, node) as (homes, sockets):
            before = await tenant.redis.get(epoch_of(homes[0]))
            await goes_on(tenant, homes[1], sockets[1])
            size = newest_aof(server).stat().st_size
            await goes_on(tenant, homes[0], sockets[0])
            server.kill()
            cut(server, size)
            server.start()
            await received_until_resync(sockets[0])

            async def renewed() -> bool:
                return bool(before != await tenant.redis.get(epoch_of(homes[0])))

            await eventually(renewed)
            # The core tells Python, which is not waited for.
            await eventually(lambda: is_logged(node, "bus.gap"))


async def test_cut_that_newer_entries_have_covered_is_noticed() -> None:
    """Redis is ahead of the reader's position again before the reader comes back."""
    with running_server() as server, nodes(server, 2) as (node, other):
        async with tenant_of(other) as tenant, two_listeners(tenant, node) as (homes, sockets):
            size = newest_aof(server).stat().st_size
            for home, socket in zip(homes, sockets, strict=True):
                await goes_on(tenant, home, socket)
            with stopped(node), stopped(other):
                server.kill()
                cut(server, size)
                server.start()
                # Written behind everybody's back, so that nobody renews an epoch.
                event = b"\x01" + msgpack.packb([1, 1, homes[0], 0, None, 1, "t", None, None, 0, None])
                async with server.client() as client:
                    for _ in range(5):
                        await client.xadd(stream_of(homes[0]), {"e": event})
            await received_until_resync(sockets[0])


async def test_confirmed_event_lost_before_reading_is_a_gap() -> None:
    """No count can tell: only who confirmed it knows, and makes it known by new epochs."""
    with running_server() as server, nodes(server, 2) as (node, other):
        async with tenant_of(other) as tenant, two_listeners(tenant, node) as (homes, sockets):
            with stopped(node):
                size = newest_aof(server).stat().st_size
                await tenant.send({"homeId": homes[0], "eventType": "confirmed"})
                server.kill()
                cut(server, size)
                server.start()
                await reconnected(other)
            await received_until_resync(sockets[0])
            assert "bus.history_lost" in other.log.read_text()


@pytest.mark.parametrize("how", ["restarted empty", "emptied while it runs"])
async def test_empty_redis_is_noticed(how: str) -> None:
    with running_server() as server, nodes(server, 1) as (node,):
        async with tenant_of(node) as tenant, two_listeners(tenant, node) as (homes, sockets):
            await goes_on(tenant, homes[0], sockets[0])
            if how == "restarted empty":
                server.kill()
                shutil.rmtree(server.directory / "appendonlydir")
                server.start()
            else:
                await tenant.redis.flushall()
            for socket in sockets:
                await received_until_resync(socket)

            async def renewed() -> bool:
                # One by one: in cluster mode they lie in many slots.
                return all([await tenant.redis.get(epoch_key(shard)) for shard in range(SHARDS)])

            await eventually(renewed)


def garbage() -> list[dict[Any, Any]]:
    """Entries that somebody else may write: two without an envelope, then what is none, then a stranger."""
    header = [3, 1, 1, 2, 3, 0, 0, 1, 0]
    return [
        {"x": b"y"},
        {f"f{number}": b"v" for number in range(1000)},
        {"e": b""},
        {"e": b"\x01" + msgpack.packb(header)[:-1]},
        {"e": b"\x01" + msgpack.packb(header[:5])},
        {"e": bytes(range(256))},
    ]


async def test_garbage_in_a_stream_is_counted_and_skipped() -> None:
    with running_server() as server, nodes(server, 1) as (node,):
        async with tenant_of(node) as tenant, two_listeners(tenant, node) as (homes, sockets):
            shard = shard_of(homes[0])
            for fields in garbage():
                await tenant.redis.xadd(events_key(shard), dict(fields))
            await goes_on(tenant, homes[0], sockets[0])
            metrics = await node.metrics()
            assert metrics["foreign_entries_total"] == 2
            assert metrics["malformed_total"] == 4
            assert metrics["history_lost_total"] == 0


NEWER = {
    "version": b"\x02" + msgpack.packb([1, 1]),
    "kind": b"\x01" + msgpack.packb([4, 1]),
    "control record": b"\x01" + msgpack.packb([3, 1, 999, 2, 3, 0, 0, 1, 0]),
}


@pytest.mark.parametrize("entry", NEWER.values(), ids=NEWER)
async def test_entry_of_a_newer_version_is_not_skipped_silently(entry: bytes) -> None:
    with running_server() as server, nodes(server, 1) as (node,):
        async with tenant_of(node) as tenant, two_listeners(tenant, node) as (homes, sockets):
            await tenant.send({"homeId": homes[0], "eventType": "before"})
            await tenant.redis.xadd(stream_of(homes[0]), {"e": entry})
            assert await sockets[0].receive_type() == "before"
            await received_until_resync(sockets[0])
            # The other home is in another shard.
            await goes_on(tenant, homes[1], sockets[1])
