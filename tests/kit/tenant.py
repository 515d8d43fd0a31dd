"""Projects of tests: their users, sessions, homes, devices and keys, and requests in their name.

Tests of behaviour import nothing of homewire: what they cannot set up by a request, these builders do.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from redis.asyncio import Redis

from homewire.access_changes.records import CONTROL
from homewire.access_changes.relay import Relay
from homewire.auth.tokens import mint
from homewire.bus.shards import events_key
from homewire.clock import MACHINE_CLOCK
from homewire.entities.store import Entity
from homewire.errors import Conflict as Conflict
from homewire.errors import HomewireError
from homewire.errors import InvalidInput as InvalidInput
from homewire.errors import UnknownRecord as UnknownRecord
from homewire.homes.members import Invitee
from homewire.homes.models import Role
from homewire.logins.store import parse_login_token
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import AccessControl, AccountSystem, Invitations, KeyScope, OfflineCommands
from homewire.repositories import Store
from homewire.sessions.activity import NOTE_INTERVAL_MS, SessionUse
from homewire.sessions.models import ClientInfo, Lifetime
from homewire.sessions.models import Session as Session
from homewire.store.keys import ProjectSlot
from homewire.users.models import ProofKind
from kit.manual_clock import ManualClock
from kit.node import NodeProcess, eventually

DEFAULT_PROJECT = 1
"""The id of the first project of an empty Redis."""
ALL_PERMISSIONS = (KeyScope.SEND_EVENT, KeyScope.SEND_COMMAND)
ACCOUNT_SYSTEMS = tuple(map(str, AccountSystem))
ACCESS_CONTROLS = tuple(map(str, AccessControl))
SCOPES = tuple(map(str, KeyScope))
StoreError = HomewireError
"""What a change in the store raises if it is refused, or not confirmed."""
MANY = 1 << 20
"""More than any test makes."""
HOUR_MS = 3_600_000
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
class StoredProject:
    """A project as its store has it, without a node."""

    store: Store
    redis: Redis
    project: int
    _users: Iterator[int] = field(default_factory=itertools.count, kw_only=True)

    async def user(self) -> Account:
        """A user without homes."""
        number = next(self._users)
        user = await self.store.users.create(self.project, f"user {number}", email=f"{number}@example.com")
        _, key = await self.store.sessions.open(
            self.project, user.id, "controller_app", ClientInfo(user_agent="test")
        )
        return Account(user.id, key)

    @property
    def slot(self) -> ProjectSlot:
        """Names of the project's keys in Redis, to read or damage what is stored."""
        return ProjectSlot(self.project)

    def store_at(self, ahead_ms: int, homes_per_user: int = 0) -> Store:
        """The store of a node with this limit, whose clock is so far ahead of this machine's and stands."""
        clock = ManualClock(MACHINE_CLOCK.now_ms() + ahead_ms)
        return Store(self.redis, Relay(self.redis, 64), clock=clock, homes_per_user=homes_per_user)

    async def project_key(self, *scopes: str) -> str:
        """A key of the project with these scopes."""
        chosen = frozenset(map(KeyScope, scopes))
        return (await self.store.project_keys.create(self.project, "key", chosen))[1]

    async def session(
        self,
        user_id: int,
        app: str = "controller_app",
        *,
        user_agent: str = "test",
        ahead_ms: int = 0,
        parent: Session | None = None,
        lifetime_s: tuple[float, float] | None = None,
    ) -> tuple[Session, str]:
        """A session of a user and its key, as of a login `ahead_ms` from now.

        It is derived from `parent`, if given. `lifetime_s`: after how long without use it ends, and after
        how long in any case (0: never).
        """
        store = self.store_at(ahead_ms) if ahead_ms else self.store
        client, lifetime = ClientInfo(user_agent=user_agent), _lifetime(lifetime_s)
        return await store.sessions.open(self.project, user_id, app, client, parent=parent, lifetime=lifetime)

    async def node_session(
        self, device_id: int, *, user_agent: str = "test", lifetime_s: tuple[float, float] | None = None
    ) -> tuple[Session, str]:
        """A session of a device's login and its key; `lifetime_s` as for `session`."""
        client, lifetime = ClientInfo(user_agent=user_agent), _lifetime(lifetime_s)
        return await self.store.sessions.open_node(self.project, device_id, client, lifetime=lifetime)

    async def entity(self, entity_id: str, home: int, entity_class: str = "room", **members: Any) -> None:
        """Bind an entity to a home."""
        made = Entity(entity_id, self.project, home, entity_class, **members)
        await self.store.entities.create(made, MANY)

    async def grant(self, user: int, permission: str) -> None:
        """`permission` is a text like `read:home-events:17`."""
        await self.store.permissions.grant(self.project, user, parsed(permission))

    async def revoke(self, user: int, permission: str) -> None:
        await self.store.permissions.revoke(self.project, user, parsed(permission))

    async def grant_group(self, group: int, permission: str) -> None:
        await self.store.groups.grant(self.project, group, parsed(permission))

    async def revoke_group(self, group: int, permission: str) -> None:
        await self.store.groups.revoke(self.project, group, parsed(permission))

    async def verification_token(self, user: int) -> str:
        """The token of a mail that verifies the user's address."""
        return await self._token(user, ProofKind.EMAIL_VERIFICATION)

    async def reset_token(self, user: int) -> str:
        """The token of a mail with which the user chooses a new password."""
        return await self._token(user, ProofKind.PASSWORD_RESET)

    async def _token(self, user: int, kind: ProofKind) -> str:
        return await self.store.verifications.issue_token(self.project, user, kind, HOUR_MS)

    def unknown_key(self) -> str:
        """A well-formed key of this project that was never created."""
        return mint(self.project)[0]

    def leased(self, session_id: str) -> AbstractAsyncContextManager[None]:
        """The session is in use by a request, and cannot be ended meanwhile."""
        return self.store.sessions.lease(self.project, session_id)

    async def announced(self) -> None:
        """Wait until nothing is left in the outbox: all that was changed is in the shards."""
        outbox = self.slot.outbox

        async def is_empty() -> bool:
            return bool(await self.redis.xlen(outbox) == 0)

        await eventually(is_empty, 20.0)

    async def used(self, session_id: str) -> None:
        """Its user's session was used, a minute after it began."""
        session = await self.store.sessions.get(self.project, session_id)
        key_hash = await self.redis.hget(self.slot.session(session_id), "key")
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

    async def invite(self, home: int, email: str, by: Account, store: Store | None = None) -> None:
        """A member adds a user by address."""
        chosen = store or self.store
        project = await chosen.projects.get(self.project)
        assert project is not None
        await chosen.members.invite(project, home, Invitee(email=email), caller_id=by.id)

    async def refuse_offline_commands(self) -> None:
        """A command to a device that is not connected is refused, and not dropped."""
        await self.store.projects.configure(self.project, offline_commands=OfflineCommands.REFUSE)

    async def add_members_at_once(self) -> None:
        """Users who are added by strangers need not accept."""
        await self.store.projects.configure(self.project, invitations=Invitations.IMMEDIATE)

    async def redeem_login_token(self, token: str) -> int | None:
        """The user that the token logs in; it is spent then. None: it is not good."""
        parsed_token = parse_login_token(token)
        if parsed_token is None or not await self.store.login_tokens.redeem(parsed_token):
            return None
        return parsed_token.user_id

    async def make_owner(self, home: int, user: int) -> None:
        """A member becomes an owner."""
        await self.store.homes.set_role(self.project, home, user, Role.OWNER)

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


@dataclass
class Tenant(StoredProject):
    """A project with one project key that may do everything here, and a client of a node."""

    url: str
    key: str
    key_id: int
    http: aiohttp.ClientSession

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


def parsed(permission: str) -> Permission:
    """A permission of its text."""
    verb, noun, subject = permission.split(":", 2)
    return Permission(PermissionKind(f"{verb}:{noun}"), subject)


def _lifetime(lifetime_s: tuple[float, float] | None) -> Lifetime | None:
    return None if lifetime_s is None else Lifetime.of_seconds(*lifetime_s)


def project_of(redis: Redis, project: int) -> StoredProject:
    """A project that is stored there."""
    return StoredProject(Store(redis, Relay(redis, 64)), redis, project)


async def new_project(
    redis: Redis, accounts: str = "email", access_control: str = "membership", on_demand: bool = False
) -> StoredProject:
    """A new project.

    Its users log in by `accounts` (`ACCOUNT_SYSTEMS`). What lets them receive events of homes is
    `access_control` (`ACCESS_CONTROLS`).
    """
    store = Store(redis, Relay(redis, 64))
    project = await store.projects.create(
        "test", AccountSystem(accounts), AccessControl(access_control), on_demand
    )
    return StoredProject(store, redis, project.id)


@asynccontextmanager
async def tenant_of(
    node: NodeProcess, accounts: str = "email", access_control: str = "membership", on_demand: bool = False
) -> AsyncIterator[Tenant]:
    """A new project on the node's Redis (`new_project`), and a client of the node."""
    redis = node.redis()
    try:
        made = await new_project(redis, accounts, access_control, on_demand)
        record, key = await made.store.project_keys.create(made.project, "server", ALL_PERMISSIONS)
        opened: list[socket.socket] = []
        async with node.client(opened) as http:
            yield Tenant(made.store, redis, made.project, node.url, key, record.id, http)
        if node.tls is not True:
            await _are_closed(opened)
    finally:
        await redis.aclose()


async def _are_closed(opened: Sequence[socket.socket]) -> None:
    """aiohttp leaves a WebSocket's TLS shutdown to the loop, which may be closed before that is done."""

    async def none_is_open() -> bool:
        return all(each.fileno() < 0 for each in opened)

    # If one stays open, the check at the end of the test names it (`conftest.py` at the root).
    with suppress(TimeoutError):
        await eventually(none_is_open)
