"""Two nodes on one Redis that loses nothing it has confirmed."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from homewire.bus.shards import events_key
from kit.clock import suspended
from kit.node import EVENTUALLY_S, NodeProcess, eventually, running_node
from kit.redis_server import BusServer, running_server
from kit.warm import run_homewire

SHARDS: Final = 64


@dataclass(frozen=True)
class Processes:
    """The server and the nodes; they were started on an empty Redis."""

    server: BusServer
    nodes: Sequence[NodeProcess]


@contextmanager
def running_pair() -> Iterator[Processes]:
    with (
        running_server() as server,
        tempfile.TemporaryDirectory(prefix="hw-") as directory,
        running_node(Path(directory) / "data1", redis_url=server.url) as one,
        running_node(Path(directory) / "data2", redis_url=server.url) as other,
    ):
        yield Processes(server, [one, other])


@dataclass(frozen=True)
class Pair:
    """The nodes, and a client of their Redis."""

    server: BusServer
    nodes: Sequence[NodeProcess]
    redis: Redis
    stopped: dict[int, float] = field(default_factory=dict)
    """Nodes that are stopped now, and since when."""
    absences: list[tuple[int, float, float]] = field(default_factory=list)
    """Which node was stopped, from when to when."""

    @contextmanager
    def stop(self, node: int | None) -> Iterator[None]:
        """The node does and reads nothing meanwhile. (None: all go on.)"""
        if node is None:
            yield
            return
        self.stopped[node] = monotonic()
        try:
            with suspended(self.nodes[node].pid):
                yield
        finally:
            self.absences.append((node, self.stopped.pop(node), monotonic()))

    async def cli(self, *words: str, **options: int) -> Any:
        """A command of `homewire` on this Redis; its answer."""
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return orjson.loads(await run_homewire(*words, *flags, "--json", "--redis", self.server.url))

    async def caught_up(self, within: float = EVENTUALLY_S) -> None:
        """Wait until every node that is not stopped has read and applied whatever is in the shards now."""
        entries = await self.entries()
        for number, node in enumerate(self.nodes):
            if number not in self.stopped:
                await eventually(_has_read(node, entries), within)

    async def entries(self) -> int:
        """How many entries were ever added, over all shards."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for shard in range(SHARDS):
                pipeline.xinfo_stream(events_key(shard))
            streams: list[Any] = await pipeline.execute(raise_on_error=False)
        return sum(each["entries-added"] for each in streams if isinstance(each, dict))


def _has_read(node: NodeProcess, entries: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return (await node.metrics())["envelopes_total"] >= entries

    return holds


@asynccontextmanager
async def pair_of(processes: Processes) -> AsyncIterator[Pair]:
    """The pair with a client of this loop."""
    redis = processes.server.client()
    try:
        yield Pair(processes.server, processes.nodes, redis)
    finally:
        await redis.aclose()
