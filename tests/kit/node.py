"""Nodes under test: real processes on a private data directory."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import orjson
import psutil
from redis.asyncio import Redis

from homewire.machine import memory_bytes as memory_bytes
from homewire.redis.connect import connect
from homewire.redis.embedded import EmbeddedServer
from kit import certificates
from kit.warm import PYTHON_PATH, WarmProcess, run_homewire

ROOT = Path(__file__).parents[2]
CLUSTER = os.environ.get("HOMEWIRE_TEST_CLUSTER") in ("1", "3")
"""Whether every Redis of these tests runs in cluster mode (`make test-cluster`)."""
MASTERS = os.environ.get("HOMEWIRE_TEST_CLUSTER") == "3"
"""Whether tests that share a store have one on a cluster of three masters and three replicas."""
START_S = 60.0
EVENTUALLY_S = 20.0
"""How long anything may take that has to come, on a busy machine."""


@dataclass
class NodeProcess:
    """A running node. One that was started with `steps` runs `node_child.py`, which takes orders."""

    process: WarmProcess | subprocess.Popen[str]
    url: str
    admin_url: str
    data_dir: Path
    redis_url: str
    log: Path
    """Its standard error."""
    tls: ssl.SSLContext | bool = True
    """What its clients trust."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def all_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def descriptors(self) -> int:
        """Without those of its connections to Redis, which are opened as they are needed, and stay."""
        connected, listener = "03", urlsplit(self.redis_url).path
        sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        return self.all_descriptors - sum(each[5] == connected and each[-1] == listener for each in sockets)

    @property
    def resident_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def processor_s(self) -> float:
        """The processor's time that its threads took, to the ns."""
        # As clock_getcpuclockid makes it of a process.
        return time.clock_gettime(~self.pid << 3 | 2)

    def logged(self) -> str:
        """Everything that the node and its Redis logged."""
        server_log = self.data_dir / "redis.log"
        return self.log.read_text() + (server_log.read_text() if server_log.exists() else "")

    def say(self, order: str) -> None:
        """An order for `node_child.py`."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    async def prints(self, line: str) -> None:
        """Wait until the node says `line`, which must be the next thing it says."""
        assert self.process.stdout is not None
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        assert said.strip() == line

    async def routes(self) -> set[tuple[str, str]]:
        """Method and path of everything that a `node_child.py` serves."""
        assert self.process.stdout is not None
        self.say("routes")
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        return {(method, path) for method, path in orjson.loads(said)}

    async def turn(self, seconds: float) -> None:
        """Let so much time pass for a `node_child.py`, by each of its clocks but Redis' and the core's."""
        self.say(f"turn {seconds}")
        await self.prints("turned")

    async def tasks(self) -> int:
        """How many tasks the event loop of a `node_child.py` has."""
        assert self.process.stdout is not None
        self.say("tasks")
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        return int(said.removeprefix("tasks "))

    async def loop_seconds(self) -> float:
        """How many seconds the event loop of a `node_child.py` has waited (`kit.manual_clock.LoopTime`)."""
        assert self.process.stdout is not None
        self.say("seconds")
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        return float(said.removeprefix("seconds "))

    def client(self, opened: list[socket.socket] | None = None) -> aiohttp.ClientSession:
        """A session whose paths are the node's. Its sockets are added to `opened`."""

        def make(address: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, *_ = address
            made = socket.socket(family, kind, protocol)
            if opened is not None:
                opened.append(made)
            return made

        connector = aiohttp.TCPConnector(ssl=self.tls, socket_factory=make)
        return aiohttp.ClientSession(self.url, connector=connector)

    def redis(self) -> Redis:
        """A client of the node's Redis."""
        return connect(self.redis_url)

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics that is homewire's, by its name without the prefix."""
        async with aiohttp.ClientSession(self.admin_url) as http, http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        samples = (line.removeprefix("homewire_").split() for line in lines if line.startswith("homewire_"))
        return {name: float(value) for name, value in samples}

    async def until(self, name: str, value: float, within: float = EVENTUALLY_S) -> None:
        """Wait until a metric has a value."""

        async def holds() -> bool:
            return (await self.metrics())[name] == value

        await eventually(holds, within)

    async def reaches(self, name: str, value: float, within: float = EVENTUALLY_S) -> None:
        """Wait until a counter, that others may count up too, has at least this value."""

        async def holds() -> bool:
            return (await self.metrics())[name] >= value

        await eventually(holds, within)

    async def cli(self, *words: object) -> Any:
        """The JSON that a command on this node's store prints."""
        options = ("--json", "--redis", self.redis_url, "--data-dir", self.data_dir)
        return orjson.loads(await run_homewire(*words, *options))

    async def outbox(self, *options: object) -> list[dict[str, Any]]:
        """The messages to people that were kept, newest last: what `homewire messages --json` shows."""
        return cast(list[dict[str, Any]], await self.cli("messages", *options))

    async def settles(self, descriptors: int | None = None, within: float = EVENTUALLY_S) -> None:
        """Wait until no reservation and no connection is left, nor a descriptor more than `descriptors`."""

        async def settled() -> bool:
            metrics = await self.metrics()
            if metrics["reservations"] or metrics["connections"]:
                return False
            return descriptors is None or self.descriptors <= descriptors

        await eventually(settled, within)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, START_S)


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that the kernel gives to no other socket meanwhile. A process that names it can listen there."""
    with socket.socket() as holder:
        # A port may be shared if all ask for it like this, and one of them listens.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@contextmanager
def running_node(
    data_dir: Path,
    *,
    steps: bool = False,
    messages: int = 0,
    broken: bool = False,
    redis_url: str | None = None,
    tls: bool = False,
    demo: bool = False,
    cold: bool = False,
    **settings: object,
) -> Iterator[NodeProcess]:
    """`homewire run`, or `node_child.py` if the test wants to stop its `steps`.

    The latter takes the messages of its clients if bytes of `messages` may wait. With `broken` each of its
    handlers raises. With `tls` the node ends TLS itself, with a certificate that the clients of the kit
    trust. Unless `cold`, it is forked from a process that has imported homewire (`warm.py`). `settings` are
    environment variables, in lower case and without their prefix.
    """
    chosen = {"durability": "everysec", "log_level": "info", "port": 0, **settings, "data_dir": data_dir}
    if redis_url is not None:
        chosen["redis_url"] = redis_url
    elif CLUSTER:
        chosen["embedded_cluster"] = True
    if tls:
        chosen["tls_cert"], chosen["tls_key"] = certificates.files()
    if steps:
        command = [str(Path(__file__).with_name("node_child.py"))]
        command += [*[f"messages={messages}"] * bool(messages), *["broken"] * broken]
    else:
        command = ["-m", "homewire.cli", "run", "--json", *(["--demo"] if demo else [])]
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    environment |= {f"HOMEWIRE_{name.upper()}": str(value) for name, value in chosen.items()}
    log = data_dir.with_name(data_dir.name + f".{next(_numbers)}.log")
    with log.open("w") as stderr:
        process = (_cold if cold else WarmProcess)(command, environment, stderr.fileno())
    with process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            assert said, f"the node did not start: {log.read_text()}"
            urls = orjson.loads(said)
            yield NodeProcess(
                process,
                urls["url"],
                urls["adminUrl"],
                data_dir,
                redis_url or EmbeddedServer.running(data_dir) or "",
                log,
                certificates.client_context() if tls else True,
            )
        finally:
            _end(process)


_numbers = itertools.count()


def _cold(arguments: list[str], environment: Mapping[str, str], stderr: int) -> subprocess.Popen[str]:
    command = [sys.executable, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=stderr, text=True)


def _end(process: WarmProcess | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(START_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        # What the last order left in the buffer has no reader any more.
        with suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()


@contextmanager
def private_node(**settings: Any) -> Iterator[NodeProcess]:
    """A node in a directory of its own, short enough for a unix socket."""
    with (
        tempfile.TemporaryDirectory(prefix="hw-") as directory,
        running_node(Path(directory) / "data", **settings) as node,
    ):
        yield node


async def eventually(condition: Callable[[], Awaitable[bool]], within: float = EVENTUALLY_S) -> None:
    """Wait until `condition` holds; another process gives us no event to wait for."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
