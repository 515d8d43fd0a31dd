"""Rights in the store: what they count by, against a simple model, and what is announced of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from control_records import heard_of, shards_of
from redis.asyncio import Redis

from homewire.errors import UnknownRecord
from homewire.model import AccessControl, AccountSystem, Entity, Right, RightKind
from homewire.store import Store


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
    def rights(self) -> list[Right]:
        """One of each kind."""
        subjects = {"home": str(self.home), "device": str(self.device), "entity": self.entity}
        return [Right(kind, subjects[kind.noun]) for kind in RightKind]

    async def user(self) -> int:
        return (await self.store.users.create(self.project, "user")).id

    async def held(self, user: int) -> set[str]:
        return await self.store.permissions.held(self.project, user, list(map(str, self.rights)))


@pytest_asyncio.fixture
async def place(store: Store, redis_client: Redis) -> AsyncIterator[Place]:
    project = await store.projects.create("test", AccountSystem.BYOU, AccessControl.PERMISSION)
    owner = await store.users.create(project.id, "owner")
    home = await store.homes.create(project.id, "home", owner.id)
    device, _, _ = await store.devices.create(project.id, "lamp", home.id)
    made = Place(store, redis_client, project.id, home.id, device.id)
    await store.entities.create(Entity(made.entity, project.id, home.id, "room"), 10)
    yield made


async def test_a_right_is_had_until_its_last_source_goes(place: Place) -> None:
    user, store, project = await place.user(), place.store, place.project
    right = place.rights[0]
    group = await store.groups.create(project, "night watch")
    await store.permissions.grant(project, user, right)
    await store.permissions.grant(project, user, right)
    await store.groups.enter(project, group.id, user)
    await store.groups.grant(project, group.id, right)
    assert await place.held(user) == {str(right)}
    assert await heard_of(place.redis, project, store.permissions.revoke(project, user, right)) == []
    assert await place.held(user) == {str(right)}
    [(name, _, shards)] = await heard_of(place.redis, project, store.groups.quit(project, group.id, user))
    assert (name, shards) == ("PERMISSION_ENDED", shards_of(place.home, user))
    assert await place.held(user) == set()
    with pytest.raises(UnknownRecord, match="permission"):
        await store.permissions.revoke(project, user, right)
