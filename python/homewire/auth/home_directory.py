"""The cached view of homes, devices, memberships and permissions (see `auth/cache.py`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final, TypeVar

from homewire.auth.cache import CacheVersions, VersionedCache, VersionedIds, VersionedRecords
from homewire.devices.models import DeviceLocation
from homewire.projects.models import Project
from homewire.repositories import Store

MAX_MEMBERSHIPS: Final = 1_000
"""Remembered of one user, and of their rights: as many as one command of the store looks at."""

Held = TypeVar("Held", int, str)
"""What is asked about: the id of a home, or a right."""


class HomeDirectory:
    """A read-only view of one node. Every method may raise `errors.Unavailable`.

    Each answer is as old as this node's tail is behind: what another node changed is seen as soon as the tail
    has read the record of it in the shard named at the method, what this one changed from its answer on. A
    handshake needs more, and says with `at_version` which total of the marks an answer has to be of
    (`VersionedCache.get`).

    Only what exists is remembered: what does not is asked for again.
    """

    def __init__(self, store: Store, freshness: CacheVersions, capacity: int) -> None:
        self._store = store
        self._projects: VersionedCache[int, Project] = VersionedCache(freshness, capacity)
        self._homes: VersionedCache[tuple[int, int], tuple[int, ...]] = VersionedCache(freshness, capacity)
        # Tuples, because a set of one id takes 216 bytes, and most users have one home.
        self._members: VersionedCache[tuple[int, int], tuple[int, ...]] = VersionedCache(freshness, capacity)
        self._rights: VersionedCache[tuple[int, int], tuple[str, ...]] = VersionedCache(freshness, capacity)
        self._locations: VersionedRecords[int, DeviceLocation] = VersionedRecords(
            freshness, capacity, is_worth_it=lambda place: place.home_id is not None
        )
        self._existing: VersionedIds[int] = VersionedIds(freshness, capacity)
        self._active: VersionedIds[int] = VersionedIds(freshness, capacity)

    async def project(self, project_id: int) -> Project | None:
        """The project, unless it was deleted. By the project's shard."""
        project = self._projects.get(project_id)
        if project is None:
            read = partial(self._store.projects.get, project_id)
            project = await self._projects.read(project_id, project_id, read)
        return project

    async def homes_of_user(
        self, project_id: int, user_id: int, at_version: int | None = None
    ) -> tuple[int, ...]:
        """Ids of all homes that the user is a member of, ascending. By the user's shard."""

        async def read() -> tuple[int, ...]:
            return tuple(await self._store.homes.followed_by(project_id, user_id))

        owner = (project_id, user_id)
        homes = self._homes.get(owner, at_version)
        return homes if homes is not None else await self._homes.read(owner, user_id, read) or ()

    async def member_of(
        self, project_id: int, user_id: int, home_ids: Collection[int], at_version: int | None = None
    ) -> set[int]:
        """Those of `home_ids` that the user is a member of. By the user's shard."""
        read = partial(self._store.homes.member_of, project_id, user_id)
        return await _remembered(self._members, (project_id, user_id), home_ids, read, at_version)

    async def rights_of(
        self, project_id: int, user_id: int, wanted: Collection[str], at_version: int | None = None
    ) -> set[str]:
        """Those of these rights (`model.Permission`, as texts) that the user has. By the user's shard."""
        read = partial(self._store.permissions.held, project_id, user_id)
        return await _remembered(self._rights, (project_id, user_id), wanted, read, at_version)

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids`. By each home's shard."""
        read = partial(self._store.homes.existing, project_id)
        return await self._existing.find(project_id, home_ids, read)

    async def active_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids` that are not deactivated. By each home's shard.

        A handshake may take it from memory at any total of the marks: what is heard of a home is in the
        home's shard, too, and so is the only record that ends it.
        """
        read = partial(self._store.homes.active, project_id)
        return await self._active.find(project_id, home_ids, read)

    async def entity_homes(self, project_id: int, entity_ids: Collection[str]) -> dict[str, int]:
        """The home that each of `entity_ids` is bound to; those that are bound to none are missing.

        Never from memory: no record tells of a binding, and few events and filters name an entity.
        """
        return await self._store.entities.bindings(project_id, entity_ids)

    async def locate(
        self, project_id: int, device_ids: Collection[int], at_version: int | None = None
    ) -> dict[int, DeviceLocation]:
        """The devices of the project among `device_ids`; unknown ids are missing. By each device's shard.

        So for a moment after a device was moved through another node, until the tail has read it, this node
        still takes its events as those of the home that it left. That it is in no home is not remembered:
        who has just claimed one may use it at once, through any node.
        """
        read = partial(self._store.devices.locate, project_id)
        return await self._locations.find(project_id, device_ids, read, at_version)

    async def locate_now(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """Like `locate`, read from the store: before a refusal, another node may just have moved the
        device."""
        return await self._store.devices.locate(project_id, tuple(device_ids))


async def _remembered(
    cache: VersionedCache[tuple[int, int], tuple[Held, ...]],
    owner: tuple[int, int],
    ids: Collection[Held],
    read: Callable[[list[Held]], Awaitable[set[Held]]],
    at_version: int | None,
) -> set[Held]:
    """Those of `ids` that a user (of a project: `owner`) has, from memory or by `read`."""
    wanted = set(ids)
    known = cache.get(owner, at_version) or ()
    if not wanted.issubset(known):
        # What is known is read again with the rest, so that an entry has one age.
        asked = sorted(wanted.union(known))
        if len(asked) > MAX_MEMBERSHIPS:
            asked = sorted(wanted)

        async def ask() -> tuple[Held, ...]:
            return tuple(await read(asked))

        known = await cache.read(owner, owner[1], ask) or ()
    return wanted.intersection(known)
