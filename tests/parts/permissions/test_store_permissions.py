"""Permissions in the store: their sources against a simple model, and their control records."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from homewire.access_changes.records import RecordType
from homewire.entities.store import Entity
from homewire.errors import Conflict, UnknownRecord
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import AccessControl, AccountSystem
from homewire.repositories import Store
from homewire.store.keys import ProjectSlot
from kit.control_records import announced_by, copies, shards_of


class EndedPermission(msgspec.Struct):
    """The body of the record of an ended permission."""

    users: list[int]
    entity: str | None = None


@dataclass
class Place:
    """A project with access by permission, with a home, a device and an entity in it."""

    store: Store
    redis: Redis
    project: int
    home: int
    device: int
    entity: str = 'Küche "1"/\u0001'

    @property
    def permissions(self) -> list[Permission]:
        """One of each kind."""
        subjects = {"home": str(self.home), "device": str(self.device), "entity": self.entity}
        return [Permission(kind, subjects[kind.noun]) for kind in PermissionKind]

    async def user(self) -> int:
        return (await self.store.users.create(self.project, "user")).id

    async def held(self, user: int) -> set[str]:
        return await self.store.permissions.held(self.project, user, list(map(str, self.permissions)))


@pytest_asyncio.fixture
async def place(store: Store, redis_client: Redis) -> AsyncIterator[Place]:
    project = await store.projects.create("test", AccountSystem.BYOU, AccessControl.PERMISSION)
    owner = await store.users.create(project.id, "owner")
    home = await store.homes.create(project.id, "home", owner.id)
    device, _, _ = await store.devices.create(project.id, "lamp", home.id)
    made = Place(store, redis_client, project.id, home.id, device.id)
    await store.entities.create(Entity(made.entity, project.id, home.id, "room"), 10)
    yield made


async def test_permission_lasts_until_its_last_source_ends(place: Place) -> None:
    user, store, project = await place.user(), place.store, place.project
    permission = place.permissions[0]
    group = await store.groups.create(project, "night watch")
    await store.permissions.grant(project, user, permission)
    await store.permissions.grant(project, user, permission)
    await store.groups.enter(project, group.id, user)
    await store.groups.grant(project, group.id, permission)
    assert await place.held(user) == {str(permission)}
    assert await announced_by(place.redis, project, store.permissions.revoke(project, user, permission)) == []
    assert await place.held(user) == {str(permission)}
    [(name, _, shards)] = await announced_by(place.redis, project, store.groups.quit(project, group.id, user))
    assert (name, shards) == ("PERMISSION_ENDED", shards_of(place.home, user))
    assert await place.held(user) == set()
    with pytest.raises(UnknownRecord, match="permission"):
        await store.permissions.revoke(project, user, permission)


async def test_record_of_ended_permission_names_permission_and_user(place: Place) -> None:
    store, project = place.store, place.project
    users = sorted([await place.user(), await place.user()])
    spared = await place.user()
    group = (await store.groups.create(project, "all")).id
    for user in (*users, spared):
        await store.groups.enter(project, group, user)
    where = {"home": (place.home, 0), "device": (place.home, place.device), "entity": (place.home, 0)}
    for permission in place.permissions:
        await store.groups.grant(project, group, permission)
        await store.permissions.grant(project, spared, permission)
        known = {copy.outbox for copy in await copies(place.redis, project)}
        await store.groups.revoke(project, group, permission)
        told = [copy for copy in await copies(place.redis, project) if copy.outbox not in known]
        reading = permission.kind.startswith("read:")
        home, device = where[permission.kind.noun] if reading else (0, 0)
        assert {(copy.type, copy.home, copy.device) for copy in told} == {
            (RecordType.PERMISSION_ENDED, home, device)
        }
        bodies = [msgspec.json.decode(copy.body, type=EndedPermission) for copy in told]
        assert {tuple(sorted(body.users)) for body in bodies} == {tuple(users)}
        assert {body.entity for body in bodies} == {
            place.entity if permission.kind.noun == "entity" else None
        }
        assert {copy.shard for copy in told} == shards_of(*users, *([home] if home else []))


async def test_deleted_user_loses_groups_and_permissions(place: Place) -> None:
    store, project, user = place.store, place.project, await place.user()
    group = (await store.groups.create(project, "all")).id
    await store.groups.enter(project, group, user)
    await store.groups.grant(project, group, place.permissions[0])
    await store.permissions.grant(project, user, place.permissions[1])
    await store.users.delete(project, user)
    assert await store.groups.members(project, group) == ([], 0)
    left = [name async for name in place.redis.scan_iter(ProjectSlot(project).user(user) + ":*")]
    assert [name for name in left if not name.endswith(b":ended")] == []
    with pytest.raises(UnknownRecord, match="user"):
        await store.groups.enter(project, group, user)
    with pytest.raises(UnknownRecord, match="user"):
        await store.permissions.grant(project, user, place.permissions[1])


async def test_deletion_that_a_crash_interrupted_is_finished_by_housekeeping(place: Place) -> None:
    store, project, slot, user = place.store, place.project, ProjectSlot(place.project), await place.user()
    group = (await store.groups.create(project, "all")).id
    await store.groups.enter(project, group, user)
    await store.groups.grant(project, group, place.permissions[0])
    # As its first step leaves it.
    await place.redis.unlink(slot.group(group))
    await place.redis.zrem(slot.groups, str(group))
    await place.redis.zadd(slot.deleted_groups, {str(group): group})
    assert await place.held(user) == {str(place.permissions[0])}
    await store.groups.sweep(project)
    assert await place.held(user) == set()
    assert await place.redis.exists(
        slot.deleted_groups, slot.group_members(group), slot.group_permissions(group), slot.user_groups(user)
    ) == 0  # fmt: skip


OPERATIONS: Final = 300


@dataclass
class RandomChanges:
    """Users and groups that random changes are made with, at the same time."""

    place: Place
    users: list[int]
    groups: list[int]
    random: Random

    async def change(self) -> None:
        """One change; what is not there to be changed is no matter."""
        place, random = self.place, self.random
        project, user, group = place.project, random.choice(self.users), random.choice(self.groups)
        permission, store = random.choice(place.permissions), place.store
        changes: list[Callable[[], Awaitable[None]]] = [
            lambda: store.permissions.grant(project, user, permission),
            lambda: store.permissions.revoke(project, user, permission),
            lambda: store.groups.enter(project, group, user),
            lambda: store.groups.quit(project, group, user),
            lambda: store.groups.grant(project, group, permission),
            lambda: store.groups.revoke(project, group, permission),
            lambda: store.groups.delete(project, group),
            lambda: store.users.delete(project, user),
        ]
        try:
            await random.choices(changes, (9, 9, 9, 6, 9, 6, 1, 1))[0]()
        except UnknownRecord:
            return
        except Conflict:
            # Others were quicker, ten times over.
            return

    async def counted(self) -> dict[int, Counter[bytes]]:
        """From which sources each user has each permission, found out the slow way."""
        redis: Any = self.place.redis
        slot, counted = ProjectSlot(self.place.project), dict[int, Counter[bytes]]()
        for user in self.users:
            sources = Counter(await redis.zrange(slot.user_grants(user), 0, -1))
            for group in map(int, await redis.zrange(slot.user_groups(user), 0, -1)):
                assert await redis.zscore(slot.group_members(group), str(user)) is not None
                sources.update(await redis.zrange(slot.group_permissions(group), 0, -1))
            counted[user] = sources
        return counted

    async def told(self) -> set[tuple[tuple[int, int], int, bytes]]:
        """Who lost what, by the records: their places, user ids and permissions to read."""
        place, found = self.place, set()
        for copy in await copies(place.redis, place.project):
            if copy.type != RecordType.PERMISSION_ENDED:
                continue
            body = msgspec.json.decode(copy.body, type=EndedPermission)
            kind, subject = PermissionKind.READ_HOME_EVENTS, str(copy.home)
            if body.entity is not None:
                kind, subject = PermissionKind.READ_ENTITY_EVENTS, body.entity
            elif copy.device:
                kind, subject = PermissionKind.READ_DEVICE, str(copy.device)
            found |= {(copy.outbox, user, str(Permission(kind, subject)).encode()) for user in body.users}
        return found


def seed() -> int:
    return int(os.environ.get("HOMEWIRE_SEED") or secrets.randbelow(10**9))


async def test_permissions_agree_with_sources_after_concurrent_changes(place: Place) -> None:
    """`HOMEWIRE_SEED=n` makes the same changes; their order is that of the moment."""
    number = seed()
    random_changes = RandomChanges(
        place,
        [await place.user() for _ in range(8)],
        [(await place.store.groups.create(place.project, "group")).id for _ in range(5)],
        Random(number),
    )
    redis: Any = place.redis
    slot, held, told = ProjectSlot(place.project), dict[int, Counter[bytes]](), await random_changes.told()
    for _ in range(10):
        await asyncio.gather(*(random_changes.change() for _ in range(OPERATIONS // 10)))
        before, held = held, await random_changes.counted()
        news = await random_changes.told() - told
        told |= news
        for user, sources in held.items():
            stored = await redis.hgetall(slot.user_permissions(user))
            assert {permission: int(count) for permission, count in stored.items()} == dict(sources), number
            # Of who is deleted another record tells.
            if await redis.exists(slot.user(user)):
                lost = {permission for permission in before.get(user, {}) if permission not in sources}
                assert {permission for permission in lost if permission.startswith(b"read:")} <= {
                    permission for _, whose, permission in news if whose == user
                }, number
