"""The stream reader on a Redis Cluster: slots move and masters fail over while events are appended."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest
from redis.cluster import RedisCluster
from redis.exceptions import RedisError

from homewire._core import Core, Topic, event_envelope, parse_event, shard_of
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.subscription import Subscription
from homewire.bus.shards import epoch_key, events_key
from homewire.redis.address import parse_address
from kit.client import CLOSE, TEXT, Socket
from kit.clock import resume, suspend
from kit.cluster import ClusterSet, running_cluster, slot_of
from kit.node import CLUSTER

pytestmark = pytest.mark.skipif(CLUSTER, reason="it has a cluster of its own")

SHARDS: Final = 64
PROJECT: Final = 1
USER: Final = Principal(PrincipalKind.USER, PROJECT, 1, 0)
TIMEOUT_S: Final = 60.0
HOMES: Final = {shard_of(home, SHARDS): home for home in range(1, 1000)}
"""A home for each shard."""
RESYNC: Final = 4002
PASSWORD: Final = "of the reader"


@pytest.fixture(scope="module")
def redis_cluster() -> Iterator[ClusterSet]:
    """Its reader is a user of its own."""
    with running_cluster() as cluster:
        for server in cluster.servers:
            server.client.execute_command("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~hw:*", "+@all")
        yield cluster


@dataclass
class Appender:
    """Appends numbered events to all homes, one after the other."""

    redis: RedisCluster
    acknowledged: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The numbers of each home's events that Redis confirmed."""
    unsure: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def append(self, home: int) -> int:
        """Append the next event. Returns its number."""
        number = next(self.numbers)
        event = parse_event(json.dumps({"eventType": str(number)}).encode())
        envelope = event_envelope(event, PROJECT, home, 0, 1, None, None, 0, None)
        try:
            self.redis.xadd(events_key(shard_of(home, SHARDS)), {"e": envelope})
        except (RedisError, OSError):
            self.unsure[home].add(number)
        else:
            self.acknowledged[home].append(number)
        return number

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Append meanwhile, at most 500 events a second: the listener reads them later."""
        stopped = threading.Event()

        def run() -> None:
            for home in itertools.cycle(HOMES.values()):
                self.append(home)
                if stopped.wait(0.002):
                    return

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


class Listener:
    """A core with a stream reader on the cluster, and one connection that receives from all homes."""

    def __init__(self, cluster: ClusterSet) -> None:
        self.core = Core(shards=SHARDS)
        url = cluster.url.replace("//", f"//reader:{PASSWORD.replace(' ', '%20')}@", 1)
        self.core.start_tail(parse_address(url))
        self.received: dict[int, list[int]] = defaultdict(list)

    async def open(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        with theirs:
            topics = tuple(Topic.Home(home) for home in HOMES.values())
            connection = self.core.reserve(USER, Subscription(topics))
            self.core.adopt(connection, os.dup(theirs.fileno()), b"")
            self.core.wake()
        self.socket = Socket(*await asyncio.open_connection(sock=ours))

    async def receive(self) -> int | None:
        """Take one event. Returns the code of a close frame instead."""
        frame = await self.socket.receive(TIMEOUT_S)
        if frame.opcode == CLOSE:
            return frame.close_code
        assert frame.opcode == TEXT
        event = json.loads(frame.payload)
        self.received[int(event["homeId"])].append(int(event["eventType"]))
        return None

    async def receive_all(self, appender: Appender) -> int | None:
        """Take everything up to one more event for each home. Returns the code of a close frame instead."""
        last = {home: appender.append(home) for home in HOMES.values()}
        while any(self.received[home][-1:] != [number] for home, number in last.items()):
            if (code := await self.receive()) is not None:
                return code
        return None


@pytest.fixture
def appender(redis_cluster: ClusterSet) -> Iterator[Appender]:
    with RedisCluster(host="127.0.0.1", port=redis_cluster.servers[1].port) as client:
        for shard in range(SHARDS):
            client.set(epoch_key(shard), "first", nx=True)
        yield Appender(client)


@contextmanager
def listening(cluster: ClusterSet) -> Iterator[Listener]:
    listener = Listener(cluster)
    try:
        yield listener
    finally:
        listener.core.stop(1001, "", 0)


def assert_received_once_and_in_order(listener: Listener, appender: Appender) -> None:
    for home, numbers in appender.acknowledged.items():
        sure = [number for number in listener.received[home] if number not in appender.unsure[home]]
        assert sure == numbers
        assert sorted(set(listener.received[home])) == listener.received[home]


async def test_events_are_received_once_while_slots_move(
    redis_cluster: ClusterSet, appender: Appender
) -> None:
    """A shard is read at its new master from the moment when its keys are there."""
    with listening(redis_cluster) as listener:
        await listener.open()
        with appender.appending():
            for shard in (3, 17, 40):
                slot = slot_of(events_key(shard))
                with redis_cluster.moving(slot) as move:
                    # Stream and epoch of a shard are apart between these steps.
                    assert await asyncio.to_thread(move.move_keys, 1)
                    for _ in range(50):
                        assert await listener.receive() is None
        assert await listener.receive_all(appender) is None
        assert_received_once_and_in_order(listener, appender)
        stats = listener.core.stats()
        assert stats["tail_redirects"] > 0
        assert (stats["gaps"], stats["tail_reconnects"]) == (0, 0)
        await listener.socket.drop()


async def test_events_are_received_once_when_masters_change_roles(
    redis_cluster: ClusterSet, appender: Appender
) -> None:
    """CLUSTER FAILOVER loses nothing, so no subscriber has to load its state again."""
    with listening(redis_cluster) as listener:
        await listener.open()
        with appender.appending():
            await asyncio.to_thread(redis_cluster.fail_over, slot_of(events_key(5)))
            for _ in range(200):
                assert await listener.receive() is None
        assert await listener.receive_all(appender) is None
        assert_received_once_and_in_order(listener, appender)
        assert listener.core.stats()["gaps"] == 0
        await listener.socket.drop()


async def test_events_of_other_masters_arrive_while_one_hangs(
    redis_cluster: ClusterSet, appender: Appender
) -> None:
    slots = {home: slot_of(events_key(shard)) for shard, home in HOMES.items()}
    hung = redis_cluster.master_of(slots[HOMES[5]])
    others = [home for home, slot in slots.items() if redis_cluster.master_of(slot) is not hung]
    with listening(redis_cluster) as listener:
        await listener.open()
        suspend(hung.process.pid)
        try:
            for home in others[:10]:
                appender.append(home)
                while listener.received[home] != appender.acknowledged[home]:
                    assert await listener.receive() is None
        finally:
            resume(hung.process.pid)
        assert await listener.receive_all(appender) is None
        await listener.socket.drop()


async def test_event_that_new_master_lacks_is_told(redis_cluster: ClusterSet, appender: Appender) -> None:
    """The master is killed before its replica has what subscribers received."""
    await asyncio.to_thread(redis_cluster.until_in_sync)
    slot = slot_of(events_key(5))
    with listening(redis_cluster) as listener:
        await listener.open()
        with redis_cluster.without_replication(slot) as master:
            appender.append(HOMES[5])
            assert await listener.receive() is None
            assert listener.received[HOMES[5]] == appender.acknowledged[HOMES[5]]
            master.kill()
        assert await listener.receive_all(appender) == RESYNC
        await listener.socket.drop()
