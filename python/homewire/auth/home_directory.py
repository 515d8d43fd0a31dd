"""The cached view of homes, devices, memberships and permissions (see `auth/cache.py`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final, TypeVar

from homewire.auth.cache import CacheVersions, VersionedCache, VersionedIds, VersionedRecords
from homewire.auth.models import DeviceContext
from homewire.devices.models import DeviceLocation
from homewire.projects.models import Project
from homewire.repositories import Store

MAX_MEMBERSHIPS: Final = 1_000
"""Memberships, and permissions, of one user that are cached: as many as one command of the store reads."""

Held = TypeVar("Held", int, str)
"""The id of a home, or the text of a permission."""


class HomeDirectory:
    """A read-only view of one node. Every method may raise `errors.Unavailable`.

    An answer may be as old as this node's stream reader is behind. A change by another node counts once the
    reader has read its control record, in the shard that the method names. A change by this node counts once
    it is answered. A handshake needs more: it passes the total cache version that the answer must have
    (`at_version`, see `VersionedCache.get`).

    Only existing records are cached. A missing one is read each time.
    """

    def __init__(self, store: Store, cache_versions: CacheVersions, capacity: int) -> None:
        self._store, clock = store, store.clock
        self._projects: VersionedCache[int, Project] = VersionedCache(cache_versions, capacity, clock=clock)
        self._homes: VersionedCache[tuple[int, int], tuple[int, ...]] = VersionedCache(
            cache_versions, capacity, clock=clock
        )
        # Tuples, because a set of one id takes 216 bytes, and most users have one home.
        self._members: VersionedCache[tuple[int, int], tuple[int, ...]] = VersionedCache(
            cache_versions, capacity, clock=clock
        )
        self._permissions: VersionedCache[tuple[int, int], tuple[str, ...]] = VersionedCache(
            cache_versions, capacity, clock=clock
        )
        self._locations: VersionedRecords[int, DeviceLocation] = VersionedRecords(
            cache_versions, capacity, clock=clock, is_worth_it=lambda place: place.home_id is not None
        )
        self._contexts: VersionedCache[tuple[int, int], DeviceContext] = VersionedCache(
            cache_versions, capacity, clock=clock
        )
        self._existing: VersionedIds[int] = VersionedIds(cache_versions, capacity, clock=clock)
        self._active: VersionedIds[int] = VersionedIds(cache_versions, capacity, clock=clock)

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
        """The homes among `home_ids` that the user is a member of. By the user's shard."""
        read = partial(self._store.homes.member_of, project_id, user_id)
        return await _held(self._members, (project_id, user_id), home_ids, read, at_version)

    async def permissions_of(
        self, project_id: int, user_id: int, wanted: Collection[str], at_version: int | None = None
    ) -> set[str]:
        """The permissions among `wanted` (texts) that the user has. By the user's shard."""
        read = partial(self._store.permissions.held, project_id, user_id)
        return await _held(self._permissions, (project_id, user_id), wanted, read, at_version)

    async def user_exists(self, project_id: int, user_id: int) -> bool:
        """Whether the project has this user. It is not cached: only project keys of servers ask."""
        return bool(await self._store.users.get_many(project_id, (user_id,)))

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids`. By each home's shard."""
        read = partial(self._store.homes.existing, project_id)
        return await self._existing.find(project_id, home_ids, read)

    async def active_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids` that are not deactivated. By each home's shard.

        A handshake may use a cached value at any total version: the events of a home are in the home's shard,
        too, and so is the record of its deactivation.
        """
        read = partial(self._store.homes.active, project_id)
        return await self._active.find(project_id, home_ids, read)

    async def entity_homes(self, project_id: int, entity_ids: Collection[str]) -> dict[str, int]:
        """The home that each entity is bound to; entities without a home are missing.

        It is not cached: bindings have no control record, and few events and filters name an entity.
        """
        return await self._store.entities.bindings(project_id, entity_ids)

    async def locate(
        self, project_id: int, device_ids: Collection[int], at_version: int | None = None
    ) -> dict[int, DeviceLocation]:
        """The devices of the project among `device_ids`; unknown ids are missing. By each device's shard.

        Until the stream reader has read the record of a move by another node, for some milliseconds, the
        device's events are assigned to the old home. Devices without a home are not cached: a user who has
        just claimed one can use it at once, through any node.
        """
        read = partial(self._store.devices.locate, project_id)
        return await self._locations.find(project_id, device_ids, read, at_version)

    async def device_context(self, project_id: int, device_id: int) -> DeviceContext | None:
        """The context of a device in an active home. By the shards of the device and of its home.

        None for any other device: `locate`, `existing_homes` and `active_homes` tell why.
        """
        key = (project_id, device_id)
        context = self._contexts.get(key)
        if context is not None:
            return context

        async def read() -> DeviceContext | None:
            location = (await self.locate(project_id, (device_id,))).get(device_id)
            if location is None or location.home_id is None:
                return None
            home_id = location.home_id
            is_active = home_id in await self.active_homes(project_id, (home_id,))
            return DeviceContext(device_id, home_id, location.device_class) if is_active else None

        return await self._contexts.read_unplaced(key, read, _shard_ids)

    async def locate_now(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """Like `locate`, read from the store: before a refusal, another node may just have moved the
        device."""
        return await self._store.devices.locate(project_id, tuple(device_ids))


def _shard_ids(context: DeviceContext) -> tuple[int, int]:
    return context.device_id, context.home_id


async def _held(
    cache: VersionedCache[tuple[int, int], tuple[Held, ...]],
    owner: tuple[int, int],
    ids: Collection[Held],
    read: Callable[[list[Held]], Awaitable[set[Held]]],
    at_version: int | None,
) -> set[Held]:
    """The ids that a user (`owner`: ids of project and user) has, cached or by `read`."""
    wanted = set(ids)
    known = cache.get(owner, at_version) or ()
    if not wanted.issubset(known):
        # The cached ids are read again with the rest, so that an entry has one version.
        ids_read = sorted(wanted.union(known))
        if len(ids_read) > MAX_MEMBERSHIPS:
            ids_read = sorted(wanted)

        async def read_ids() -> tuple[Held, ...]:
            return tuple(await read(ids_read))

        known = await cache.read(owner, owner[1], read_ids) or ()
    return wanted.intersection(known)
