"""Projects of tests: their users, homes and devices, and requests in their name."""

from __future__ import annotations

import asyncio
import io
import itertools
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from redis.asyncio import Redis

from homewire.access_changes.records import CONTROL
from homewire.access_changes.relay import Relay
from homewire.bus.shards import events_key
from homewire.projects.models import AccessControl, AccountSystem, KeyScope
from homewire.redis.connect import connect
from homewire.repositories import Store
from homewire.sessions.activity import NOTE_INTERVAL_MS, SessionUse
from homewire.sessions.models import ClientInfo
from homewire.store.keys import ProjectSlot
from kit.node import NodeProcess, eventually

DEFAULT_PROJECT = 1
"""The id of the first project of an empty Redis."""
ALL_PERMISSIONS = (KeyScope.SEND_EVENT, KeyScope.SEND_COMMAND)
KIND_AT = 2
"""Where an envelope says what it is: behind its version and the head of its header."""


@dataclass(frozen=True)
class Account:
    """A user or a device, with its key."""

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
        """The reason of a refusal."""
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
            self.project, user.id, "controller_app", ClientInfo(user_agent="test")
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

    async def home(self, owner: Account, members: Sequence[Account] = ()) -> int:
        """A home with an owner, and with these members."""
        home = (await self.store.homes.create(self.project, "home", owner.id)).id
        for member in members:
            await self.store.homes.add_member(self.project, home, member.id)
        return home

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
        opened: list[socket.socket] = []
        async with node.client(opened) as http:
            yield Tenant(store, redis, node.url, project.id, key, record.id, http)
        if node.tls is not True:
            await _are_closed(opened)
    finally:
        await redis.aclose()


async def _are_closed(opened: Sequence[socket.socket]) -> None:
    """aiohttp leaves a WebSocket's TLS shutdown to the loop, which may be closed before that is done."""

    async def none_is_open() -> bool:
        return all(each.fileno() < 0 for each in opened)

    # What stays open after all is told of by the look at what each test left behind.
    with suppress(TimeoutError):
        await eventually(none_is_open)
