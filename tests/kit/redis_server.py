"""A real server of the bus tests' own, that can be stopped, killed and started again."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.client import Monitor
from redis.exceptions import ConnectionError as RedisConnectionError

from homewire.bus.append import Bus
from homewire.bus.shards import BusError, BusSettings, events_key
from homewire.redis.connect import connect
from homewire.redis.embedded import EmbeddedServer, find_binary
from homewire.redis.servers import Connections
from kit.clock import resume, suspend
from kit.node import CLUSTER, reserved_port

TIMEOUT_S = 10.0
MAX_SCRIPT_WORDS = 10_000
"""Words of commands of one script: it touches at most 1,000 elements."""


class BusServer:
    """The embedded server's program on a unix socket in `directory`, with appendfsync always."""

    def __init__(self, directory: Path, cluster_port: int, *options: str) -> None:
        self.directory = directory
        self._cluster_port = str(cluster_port)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it answers and has loaded its file."""
        self.launch()
        with self.blocking_client() as client:
            until = time.monotonic() + TIMEOUT_S
            while True:
                try:
                    client.ping()
                except (RedisConnectionError, OSError):
                    assert time.monotonic() < until, "the server does not start"
                    # A server that does not listen yet has nothing to be awaited by.
                    time.sleep(0.005)
                else:
                    break
            while CLUSTER and not _whole(client):
                assert time.monotonic() < until, "the server does not take its slots"
                # The server does not announce it, so it is polled.
                time.sleep(0.005)

    def launch(self) -> None:
        """Start it without waiting."""
        command = [str(find_binary(None)), "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.directory)]
        if CLUSTER:
            command += [
                "--cluster-enabled",
                "yes",
                "--bind",
                "127.0.0.1",
                "--cluster-port",
                self._cluster_port,
            ]
        self._process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL)

    def hang(self) -> None:
        assert self._process is not None
        suspend(self._process.pid)

    def go_on(self) -> None:
        assert self._process is not None
        resume(self._process.pid)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> Redis:
        """An ordinary client, to read what arrived."""
        return connect(self.url)

    def blocking_client(self) -> BlockingRedis:
        """The same, without a loop."""
        return BlockingRedis(unix_socket_path=str(self.socket))


def _whole(client: BlockingRedis) -> bool:
    """Whether a server in cluster mode has all slots and serves; until then it is given them."""
    info: Any = client.cluster("INFO")
    if info["cluster_slots_assigned"] != "16384":
        client.cluster("ADDSLOTSRANGE", 0, 16383)
    return bool(info["cluster_state"] == "ok")


@contextmanager
def running_server(*options: str) -> Iterator[BusServer]:
    """A started server in a directory short enough for a socket path."""
    with tempfile.TemporaryDirectory(prefix="hw-bus-") as directory, reserved_port() as cluster_port:
        server = BusServer(Path(directory), cluster_port, *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def running_bus(server: BusServer, **settings: Any) -> AsyncIterator[Bus]:
    """A bus on `server`, with these settings. It is connected if the server is there, and does not hang."""
    bus = Bus(BusSettings(server.url, **{"connect_timeout": TIMEOUT_S, **settings}))
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


def client_of(url: str) -> Redis:
    """A client of any Redis that nodes can use, e.g. one that Sentinel names."""
    return connect(url)


@asynccontextmanager
async def embedded_server(directory: Path) -> AsyncIterator[EmbeddedServer]:
    """The embedded Redis of a node, without a node."""
    async with EmbeddedServer(directory, "everysec", CLUSTER) as server:
        yield server


async def entries_of(redis: Redis, shard: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Ids and fields of a shard, oldest first."""
    entries: Any = await redis.xrange(events_key(shard))
    return list(entries)


async def envelopes_of(redis: Redis, shard: int) -> list[bytes]:
    """Everything in a shard, oldest first."""
    return [fields[b"e"] for _, fields in await entries_of(redis, shard)]


async def eventually(condition: Callable[[], bool], within: float = TIMEOUT_S) -> None:
    """Wait until `condition()` is true; an outside process gives us no event to wait for."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 -- as the docstring says
            await asyncio.sleep(0.005)


@asynccontextmanager
async def monitored(redis: Redis) -> AsyncIterator[Monitor]:
    """All commands that the server of a client gets, on a unix socket."""
    server = Connections.of(redis).servers.single
    assert server is not None
    async with Redis(unix_socket_path=server.address.path) as own, own.monitor() as monitor:
        yield monitor


@asynccontextmanager
async def watched_scripts(redis: Redis) -> AsyncIterator[list[int]]:
    """The size of each script that runs meanwhile: how many words its commands have. Complete at the end.

    Redis does nothing else while a script runs, and how long that takes depends on the machine.
    """
    sizes: list[int] = []
    async with monitored(redis) as monitor:

        async def count() -> None:
            async for said in monitor.listen():
                words = said["command"].split()
                if said["client_type"] != "lua":
                    sizes.append(0)
                elif sizes:
                    sizes[-1] += len(words)
                assert words[0].upper() != "DEL", "DEL of a large value keeps Redis busy; UNLINK does not"
                if words == ["ECHO", _ALL_COUNTED]:
                    return

        counting = asyncio.create_task(count())
        yield sizes
        await redis.echo(_ALL_COUNTED)
        await counting


_ALL_COUNTED = "all-counted"


async def not_cancelled(redis: Redis, tasks: Sequence[asyncio.Task[None]], within: float = TIMEOUT_S) -> int:
    """How many of the tasks, cancelled wherever they are, do not end by it. They have ended afterwards."""
    for task in tasks:
        await redis.ping()
        task.cancel()
    _, running = await asyncio.wait(tasks, timeout=within)
    running_on = len(running)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.05)
    return running_on


async def append_many(bus: Bus, items: Sequence[tuple[int, bytes]]) -> list[bytes | BusError]:
    """Append `(shard, envelope)` items as one bulk request does."""
    return await bus.append_each(items)
