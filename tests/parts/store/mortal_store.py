"""A store that dies after its n-th command, a project to change with it, and a picture of that project."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import mortal_groups
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.devices.models import Device
from homewire.entities.store import Entity
from homewire.events.queued_commands import QueueBounds, QueuedCommand
from homewire.homes.members import Invitee
from homewire.kv.store import Owner, ValueLimits
from homewire.projects.models import AccountSystem
from homewire.redis.connect import connect
from homewire.redis.connection import PendingWrite, RedisConnection
from homewire.redis.servers import Connections
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo
from homewire.store.keys import ProjectSlot
from homewire.users.models import ProofKind
from homewire.webhooks.models import ModuleType
from kit.key_space import kind, names_of

SHARDS: Final = 4
BOUNDS: Final = ValueLimits(100, 100_000)
LIFETIME_MS: Final = 600_000


@dataclass
class Death:
    """Comes after so many commands: what would be sent then, or later, never is."""

    after: int
    has_come: bool = False

    def is_near(self) -> bool:
        """One more command is about to be sent: whether it never will be."""
        self.has_come = self.has_come or self.after <= 0
        self.after -= 1
        return self.has_come


@asynccontextmanager
async def mortal_store(url: str, death: Death) -> AsyncIterator[Store]:
    """All of its commands count, those of the relay that announces its changes too."""
    redis = connect(url, max_connections=8)

    class Mortal(RedisConnection):
        def write(self, batches: Collection[PendingWrite]) -> None:
            if death.is_near():
                self.drop()
            super().write(batches)

    Connections.of(redis).connection_class = Mortal
    try:
        yield Store(redis, Relay(redis, SHARDS))
    finally:
        await redis.aclose()


@dataclass
class StoredProject:
    """A project with people, homes, and something of everything in them."""

    project: int = 0
    ada: int = 0
    bob: int = 0
    guest: int = 0
    hut: int = 0
    tent: int = 0
    lamp: Device = field(init=False)
    spare: Device = field(init=False)
    room: Entity = field(init=False)
    key: str = ""
    staff: int = 0
    """A group that Ada and Bob are in."""
    session: str = ""
    node_session: str = ""
    email_token: str = ""
    reset_token: str = ""
    login_token: str = ""
    provisioning: str = ""

    @property
    def of_hut(self) -> Owner:
        return Owner(self.project, "home", self.hut)

    @property
    def of_lamp(self) -> Owner:
        return Owner(self.project, "device", self.lamp.id)

    def command(self) -> QueuedCommand:
        return QueuedCommand(self.lamp.id, b"head", b"tail", 1 << 42)


async def new_stored_project(store: Store, on_demand: bool) -> StoredProject:
    """Ada owns Hut and Tent; Bob and a guest, who is only invited, are members of Hut."""
    project = await store.projects.create("mortal", AccountSystem.EMAIL, on_demand_provisioning=on_demand)
    made = StoredProject(project.id)
    made.ada, made.bob = [
        (await store.users.create(project.id, name, email=f"{name}@example.com")).id
        for name in ("Ada", "Bob")
    ]
    made.hut, made.tent = [
        (await store.homes.create(project.id, name, made.ada)).id for name in ("Hut", "Tent")
    ]
    await store.homes.add_member(project.id, made.hut, made.bob)
    invitee = Invitee(email="guest@example.com")
    made.guest = (await store.members.invite(project, made.hut, invitee))[0].user_id
    await _things(store, made, on_demand)
    made.staff = await mortal_groups.new_group(store, project.id, made.ada, made.bob)
    session, made.key = await store.sessions.open(project.id, made.ada, "app", ClientInfo())
    made.session = session.id
    made.node_session = (await store.sessions.open_node(project.id, made.spare.id, ClientInfo()))[0].id
    issue = store.verifications.issue_token
    made.email_token = await issue(project.id, made.ada, ProofKind.EMAIL_VERIFICATION, LIFETIME_MS)
    made.reset_token = await issue(project.id, made.bob, ProofKind.PASSWORD_RESET, LIFETIME_MS)
    made.login_token, _ = await store.login_tokens.create(project.id, made.bob, LIFETIME_MS)
    return made


async def _things(store: Store, made: StoredProject, on_demand: bool) -> None:
    project = made.project
    made.lamp, _, _ = await store.devices.create(project, "lamp", made.hut, "hall", "mine")
    made.spare, _, _ = await store.devices.create(project, "lamp", tag="spare")
    if on_demand:
        made.provisioning, _ = await store.provisioning.begin(project, made.hut, made.ada, "lamp", "new")
    else:
        await store.devices.set_claimable(project, made.spare.id, store.now_ms() + LIFETIME_MS)
    for owner in (made.of_hut, made.of_lamp):
        await store.key_values.put(owner, "mood", b'"calm"', BOUNDS)
    await store.queued_commands.add(project, made.command(), QueueBounds(10, 10_000))
    made.room = await store.entities.create(Entity("room", project, made.hut, "room"), 10)
    await store.entities.create(Entity("sink", project, made.hut, "part", parent_id="room"), 10)
    await new_module(store, made, "hook")


async def new_module(store: Store, made: StoredProject, module: str) -> None:
    create = store.smart_modules.create
    await create(made.project, module, ModuleType.WEBHOOK, "", ["e"], [made.hut], "u", "k", SHARDS)


class Pictures:
    """What the ordinary read functions say of a project, in names instead of ids and without times.

    To take one is to see that both sides of everything agree.
    """

    def __init__(self, store: Store, redis: Redis) -> None:
        self._store = store
        self._redis = redis

    async def take(self, made: StoredProject) -> dict[str, Any]:
        users = await self._users(made)
        await self._sessions(made, users)
        homes, devices, entities, modules, principal, kinds = await asyncio.gather(
            self._homes(made, users),
            self._devices(made),
            self._entities(made),
            self._modules(made),
            self._store.principals.lookup(made.key),
            self._kinds(made),
        )
        return {
            "users": sorted(users.values()),
            "permissions": await mortal_groups.picture(self._store, self._redis, made.project, users),
            "homes": sorted(homes.values()),
            "devices": devices,
            "entities": entities,
            "modules": modules,
            "key": principal is not None,
            "kinds": kinds,
        }

    async def _users(self, made: StoredProject) -> dict[int, Any]:
        """Registered and invited, by id."""
        store, project, found = self._store, made.project, dict[int, Any]()
        slot = ProjectSlot(project)
        registered = (await store.users.list(project))[0]
        directory: dict[Any, Any] = await self._redis.hgetall(slot.emails)
        addresses = {int(user): email for email, user in directory.items()}
        for user_id, address in addresses.items():
            user = await store.users.get_any(project, user_id)
            assert user is not None, address
            assert (user.email or "").lower() == address.decode()
            assert (user in registered) is not user.invited
            assert await store.users.by_email(project, user.email or "") == (None if user.invited else user)
            password = await self._redis.hget(slot.user(user_id), "password")
            sessions = await store.sessions.of_user(project, user_id)
            for session in sessions:
                assert await store.sessions.get(project, session.id) == session
            homes = await store.homes.of_user(project, user_id)
            for home in homes:
                assert await store.homes.member(project, home, user_id) is not None
            found[user_id] = (
                str(user.email), user.name, user.verified, user.invited, password, len(sessions), len(homes)
            )  # fmt: skip
        assert {user.id for user in registered} <= addresses.keys()
        return found

    async def _sessions(self, made: StoredProject, users: dict[int, Any]) -> None:
        """The project's index has those of its users and devices, and no others."""
        store, project = self._store, made.project
        listed = [each.id async for page in store.sessions.pages(project) for each in page]
        assert await self._redis.zcard(ProjectSlot(project).sessions) == len(listed)
        devices = [device.id for device in (await store.devices.page(project))[0]]
        found = [each.id for user in users for each in await store.sessions.of_user(project, user)]
        found += [each.id for device in devices for each in await store.sessions.of_device(project, device)]
        assert sorted(listed) == sorted(found)

    async def _homes(self, made: StoredProject, users: dict[int, Any]) -> dict[int, Any]:
        store, project, found = self._store, made.project, dict[int, Any]()
        ids = (await store.homes.slice(project))[0]
        homes = await store.homes.all_of(project, ids)
        assert [home.id for home in homes] == ids
        for home in homes:
            members = await store.homes.members(project, home.id)
            for member in members:
                assert home.id in await store.homes.of_user(project, member.user_id)
            owners = sum(member.role == "owner" for member in members)
            counted = int(await self._redis.hget(ProjectSlot(project).home(home.id), "owners") or 0)
            # Whoever is being deleted is counted until it is decided who follows.
            departing = await self._redis.exists(ProjectSlot(project).departing_users)
            assert counted == owners or departing
            people = sorted((users[each.user_id][0], each.role.value) for each in members)
            values = await self._values(Owner(project, "home", home.id))
            found[home.id] = home.name, home.timezone or "", people, values
        return found

    async def _devices(self, made: StoredProject) -> list[Any]:
        store, project, found = self._store, made.project, list[Any]()
        devices, total = await store.devices.page(project)
        assert len(devices) == total
        for device in devices:
            assert await store.devices.get(project, device.id) == device
            located = (await store.devices.locate(project, [device.id]))[device.id]
            assert (located.home_id, located.device_class) == (device.home_id, device.device_class)
            home = None
            if device.home_id is not None:
                assert device.id in await store.devices.of_home(project, device.home_id)
                (home,) = await store.homes.all_of(project, [device.home_id])
            values = await self._values(Owner(project, "device", device.id))
            _, kept = await store.queued_commands.read(project, device.id)
            claimable = bool(
                await self._redis.hget(ProjectSlot(project).device(device.id), "claimable_until")
            )
            found.append((device.tag, device.name, home.name if home else "", values, len(kept), claimable))
        codes = await self._redis.hgetall(ProjectSlot(project).claim_codes)
        assert {int(each) for each in codes.values()} <= {device.id for device in devices}
        for home_id in (made.hut, made.tent):
            for device in (await store.devices.page(project, home_id))[0]:
                assert device.home_id == home_id
        return sorted(found)

    async def _values(self, owner: Owner) -> list[Any]:
        store = self._store.key_values
        values, total = await store.find(owner)
        assert len(values) == total
        slot = ProjectSlot(owner.project_id)
        stored = await self._redis.hgetall(slot.values(owner.kind, owner.id))
        size = sum(len(each) for key, each in stored.items() if key != b"_bytes")
        assert int(stored.get(b"_bytes", 0)) == size
        assert stored.keys() - {b"_bytes"} == {value.key.encode() for value in values}
        for value in values:
            assert await store.get(owner, value.key) == value
        return [(value.key, value.value) for value in values]

    async def _entities(self, made: StoredProject) -> list[Any]:
        store, project, found = self._store, made.project, list[Any]()
        entities, _ = await store.entities.find(project)
        for entity in entities:
            assert entity in (await store.entities.find(project, entity.home_id))[0]
            assert await store.entities.bindings(project, [entity.id]) == {entity.id: entity.home_id}
            place = await self._redis.hget(ProjectSlot(project).entity_places, entity.id) or b""
            children = sum(each.parent_id == entity.id for each in entities)
            assert place.split()[1] == str(children).encode()
            found.append((entity.id, entity.entity_class, entity.parent_id or ""))
        return found

    async def _modules(self, made: StoredProject) -> list[str]:
        store, project = self._store.smart_modules, made.project
        modules = await store.list(project)
        for module in modules:
            assert await store.get(project, module.id) == module
            # No node would deliver to one that is not noted here.
            assert project in await store.versions()
        return [module.id for module in modules]

    async def _kinds(self, made: StoredProject) -> Counter[str]:
        """How many keys there are of each kind: what no read function shows would be an orphan here."""
        pattern = ProjectSlot(made.project).prefix + "*"
        found = Counter(map(kind, await names_of(self._redis, pattern)))
        # An outbox goes with nothing; it is empty or will be.
        del found["outbox"]
        return found
