"""The groups and permissions of a project to be changed with dying processes, and a picture of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from homewire.permissions.models import Permission, PermissionKind
from homewire.repositories import Store
from homewire.store.keys import ProjectSlot

HALL = Permission(PermissionKind.READ_ENTITY_EVENTS, "hall")
SINK = Permission(PermissionKind.READ_ENTITY_EVENTS, "sink")


async def new_group(store: Store, project: int, *users: int) -> int:
    """A group of these users with a permission for the hall; the first user has one of its own, too."""
    group = (await store.groups.create(project, "staff")).id
    for user in users:
        await store.groups.enter(project, group, user)
    await store.groups.grant(project, group, HALL)
    await store.permissions.grant(project, users[0], HALL)
    return group


async def picture(store: Store, redis: Redis, project: int, users: Mapping[int, Any]) -> list[Any]:
    """The groups, with members and permissions, and the permissions of each user; both sides must agree."""
    client: Any = redis
    slot, found = ProjectSlot(project), list[Any]()
    groups, _ = await store.groups.list(project)
    for group in groups:
        members, _ = await store.groups.members(project, group.id)
        permissions = await store.groups.permissions(project, group.id)
        found.append(
            (group.name, sorted(str(users.get(each)) for each in members), list(map(str, permissions)))
        )
        for member in members:
            # Who is deleted leaves when the rest of them is swept.
            assert member not in users or await client.zscore(slot.user_groups(member), group.id) is not None
    for user_id, user in users.items():
        held = await store.permissions.of_user(project, user_id)
        counted = Counter({str(each.permission): each.direct + len(each.group_ids) for each in held})
        stored = await client.hgetall(slot.user_permissions(user_id))
        assert {permission.decode(): int(count) for permission, count in stored.items()} == counted
        found.append((str(user), sorted(counted.items())))
    return sorted(found)
