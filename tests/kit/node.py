"""Nodes under test: real processes on a private data directory, and what is put into their store."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import orjson
import psutil
from redis.asyncio import Redis

from homewire.access_changes.records import CONTROL
from homewire.access_changes.relay import Relay
from homewire.bus.shards import events_key
from homewire.projects.models import AccessControl, AccountSystem, KeyScope
from homewire.redis.connect import connect
from homewire.redis.embedded import EmbeddedServer
from homewire.repositories import Store
from homewire.sessions.activity import NOTE_INTERVAL_MS, SessionUse
from homewire.sessions.models import Login
from homewire.store.keys import ProjectSlot
from kit import certificates
from kit.warm import WarmProcess, run_homewire

ROOT = Path(__file__).parents[2]
CLUSTER = os.environ.get("HOMEWIRE_TEST_CLUSTER") == "1"
"""Whether every Redis of these tests runs in cluster mode (`make test-cluster`)."""
START_S = 60.0
DEFAULT_PROJECT = 1
"""The id of the first project of an empty Redis."""
ALL_PERMISSIONS = (KeyScope.SEND_EVENT, KeyScope.SEND_COMMAND)


@dataclass
class NodeProcess:
    """A running node. `steps` tells whether it is one of `node_process.py`, which takes orders."""

    process: WarmProcess | subprocess.Popen[str]
    url: str
    admin_url: str
    data_dir: Path
    redis_url: str
    log: Path
    """Its standard error."""
    tls: ssl.SSLContext | bool = True
    """Whom its clients believe."""

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
        """An order for `node_process.py`."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    async def prints(self, line: str) -> None:
        """Wait until the node says `line`, which must be the next thing it says."""
        assert self.process.stdout is not None
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        assert said.strip() == line

    async def routes(self) -> set[tuple[str, str]]:
        """Method and path of everything that a `node_process.py` serves."""
        assert self.process.stdout is not None
        self.say("routes")
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        return {(method, path) for method, path in orjson.loads(said)}

    async def tasks(self) -> int:
        """How many tasks the event loop of a `node_process.py` has."""
        assert self.process.stdout is not None
        self.say("tasks")
        said = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        return int(said.removeprefix("tasks "))

    def client(self) -> aiohttp.ClientSession:
        """A session whose paths are the node's."""
        return aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(ssl=self.tls))

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics that is homewire's, by its name without the prefix."""
        async with aiohttp.ClientSession(self.admin_url) as http, http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        samples = (line.removeprefix("homewire_").split() for line in lines if line.startswith("homewire_"))
        return {name: float(value) for name, value in samples}

    async def until(self, name: str, value: float, within: float = 10.0) -> None:
        """Wait until a metric has a value."""

        async def holds() -> bool:
            return (await self.metrics())[name] == value

        await eventually(holds, within)

    async def reaches(self, name: str, value: float, within: float = 10.0) -> None:
        """Wait until a counter, that others may count up too, has at least this value."""

        async def holds() -> bool:
            return (await self.metrics())[name] >= value

        await eventually(holds, within)

    async def cli(self, *words: object) -> Any:
        """The JSON that a command on this node's store prints."""
        options = ("--json", "--redis", self.redis_url, "--data-dir", self.data_dir)
        return orjson.loads(await run_homewire(*words, *options))

    async def outbox(self, *options: object) -> list[dict[str, Any]]:
        """The messages to people that were kept, newest last: what `homewire outbox --json` shows."""
        return cast(list[dict[str, Any]], await self.cli("outbox", *options))

    async def settles(self, descriptors: int | None = None, within: float = 10.0) -> None:
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
    """A port that the kernel gives to nobody meanwhile; who names it can listen there."""
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
    """`homewire run`, or `node_process.py` if the test wants to stop its `steps`.

    The latter takes the messages of its clients if bytes of `messages` may wait, and with `broken` every
    handler raises. With `tls` the node ends TLS itself, with a certificate that `wire` and `Tenant.http`
    trust. Unless `cold`, it is spared its imports (`warm.py`). `settings` are those of the environment, in
    lower case.
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
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


async def eventually(condition: Callable[[], Awaitable[bool]], within: float = 10.0) -> None:
    """Wait until `condition` holds; another process gives us no event to wait for."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _tls_connections_closed(node: NodeProcess) -> None:
    """aiohttp leaves a WebSocket's TLS shutdown to the loop, which may be closed before that is done."""
    port = urlsplit(node.url).port

    async def none_is_open() -> bool:
        connections = psutil.Process().net_connections("tcp")
        return not any(each.raddr and each.raddr.port == port for each in connections)

    # What stays open after all is told of by the look at what each test left behind.
    with suppress(TimeoutError):
        await eventually(none_is_open)


KIND_AT = 2
"""Where an envelope says what it is: behind its version and the head of its header."""


@dataclass(frozen=True)
class Account:
    """Somebody with a key: a user or a device."""

    id: int
    key: str
    home: int | None = None
    """Where a device is."""


@dataclass(frozen=True)
class Reply:
    """What the REST service answered."""

    status: int
    body: Any
    """Decoded; None without one."""
    headers: Mapping[str, str]

    @property
    def range(self) -> str:
        """Of a list: `<first>-<last>/<how many there are>`."""
        return self.headers["vnd.tinkermode.range"]

    @property
    def reason(self) -> str:
        """Why something was refused."""
        return str(self.body["reason"])


@dataclass
class Tenant:
    """A project with one project key that may do everything here."""

    store: Store
    redis: Redis
    url: str
    project: int
    key: str
    key_id: int
    http: aiohttp.ClientSession
    _users: Iterator[int] = field(default_factory=itertools.count)

    async def user(self) -> Account:
        """A user without homes."""
        number = next(self._users)
        user = await self.store.users.create(self.project, f"user {number}", email=f"{number}@example.com")
        _, key = await self.store.sessions.open(
            self.project, user.id, "controller_app", Login(user_agent="test")
        )
        return Account(user.id, key)

    async def announced(self) -> None:
        """Wait until nothing is left in the outbox: all that was changed is in the shards."""
        outbox = ProjectSlot(self.project).outbox

        async def is_empty() -> bool:
            return bool(await self.redis.xlen(outbox) == 0)

        await eventually(is_empty, 20.0)

    async def used(self, session_id: str) -> None:
        """Its user's session was used, a minute after it began."""
        session = await self.store.sessions.get(self.project, session_id)
        key_hash = await self.redis.hget(ProjectSlot(self.project).session(session_id), "key")
        assert session is not None
        assert isinstance(key_hash, bytes)
        use = SessionUse(
            session_id, session.user_id, 0, key_hash.decode(), session.started_ms + NOTE_INTERVAL_MS
        )
        await self.store.session_uses.touch(self.project, [use])

    async def home(self, owner: Account) -> int:
        return (await self.store.homes.create(self.project, "home", owner.id)).id

    async def homes(self, owner: Account, count: int) -> list[int]:
        """Many homes, fewer at once than there are connections to Redis: the last would wait too long."""
        gate = asyncio.Semaphore(24)

        async def one() -> int:
            async with gate:
                return await self.home(owner)

        return list(await asyncio.gather(*(one() for _ in range(count))))

    async def device(self, home: int | None) -> Account:
        device, key, _ = await self.store.devices.create(self.project, "sensor", home_id=home)
        return Account(device.id, key, home)

    async def send(self, *events: dict[str, Any]) -> None:
        """Events by bulk; each must be taken."""
        for start in range(0, len(events), 1000):
            some = list(events[start : start + 1000])
            body = io.BytesIO(orjson.dumps(some))
            async with self.http.post("/events", data=body, headers={"Authorization": self.key}) as answer:
                results = (await answer.json())["results"]
            assert [result["status"] for result in results] == [204] * len(some), results

    async def put(self, path: str, key: str, body: Any, **headers: str) -> tuple[int, Any]:
        """PUT `body` (bytes as they are, else as JSON); the status and the answer's JSON."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        given = {"Authorization": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.http.put(path, data=data, headers=given) as answer:
            content = await answer.read()
            return answer.status, orjson.loads(content) if content else None

    async def ask(self, method: str, path: str, key: str | None, body: Any = None, **options: Any) -> Reply:
        """Any request; `body` goes as JSON. `options` are those of aiohttp."""
        headers = {"Authorization": key} if key is not None else {}
        given = {"data": orjson.dumps(body), **options} if body is not None else options
        async with self.http.request(method, path, headers=headers, **given) as answer:
            content = await answer.read()
            return Reply(answer.status, orjson.loads(content) if content else None, answer.headers)

    async def stored(self) -> int:
        """How many events and commands lie in all shards that came since there is this project.

        What is older may be trimmed at any moment: a session of tests can take longer than events are kept.
        """
        project = await self.store.projects.get(self.project)
        assert project is not None
        count = 0
        for shard in range(64):
            entries: Any = await self.redis.xrange(events_key(shard), min=project.created_ms)
            count += sum(fields[b"e"][KIND_AT] != CONTROL for _, fields in entries)
        return count


@asynccontextmanager
async def tenant_of(
    node: NodeProcess,
    accounts: AccountSystem = AccountSystem.EMAIL,
    access_control: AccessControl = AccessControl.MEMBERSHIP,
    on_demand: bool = False,
) -> AsyncIterator[Tenant]:
    """A new project on the node's Redis, and a client of the node."""
    redis = connect(node.redis_url)
    store = Store(redis, Relay(redis, 64))
    try:
        project = await store.projects.create("test", accounts, access_control, on_demand)
        record, key = await store.project_keys.create(project.id, "server", ALL_PERMISSIONS)
        async with node.client() as http:
            yield Tenant(store, redis, node.url, project.id, key, record.id, http)
        if node.tls is not True:
            await _tls_connections_closed(node)
    finally:
        await redis.aclose()
