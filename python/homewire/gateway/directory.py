"""Where homes and devices are, and who may see them: the store, remembered for a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, TypeVar

from homewire.gateway.expiring import ExpiringCache
from homewire.model import DeviceLocation, Project
from homewire.store import Store

CACHE_SECONDS: Final = 1.0
"""As for keys: what changed must be seen within a second."""

Scope = tuple[int, ...]
"""Whose ids these are: (project,) or (project, user)."""
Value = TypeVar("Value")


class Directory:
    """A read-only view of one node. Every method may raise `errors.Unavailable`.

    Only what exists is remembered: what does not is asked for again.
    """

    def __init__(self, store: Store, capacity: int) -> None:
        self._store = store
        self._projects: ExpiringCache[int, Project] = ExpiringCache(CACHE_SECONDS, capacity)
        self._homes: ExpiringCache[tuple[int, int], tuple[int, ...]] = ExpiringCache(CACHE_SECONDS, capacity)
        self._locations: ExpiringCache[Scope, DeviceLocation] = ExpiringCache(CACHE_SECONDS, capacity)
        self._existing: ExpiringCache[Scope, bool] = ExpiringCache(CACHE_SECONDS, capacity)
        self._members: ExpiringCache[Scope, bool] = ExpiringCache(CACHE_SECONDS, capacity)

    async def project(self, project_id: int) -> Project | None:
        """The project, unless it was deleted."""
        project = self._projects.get(project_id)
        if project is None:
            project = await self._store.projects.get(project_id)
            if project is not None:
                self._projects.put(project_id, project)
        return project

    async def homes_of_user(self, project_id: int, user_id: int) -> tuple[int, ...]:
        """Ids of all homes that the user is a member of, ascending."""
        homes = self._homes.get((project_id, user_id))
        if homes is None:
            homes = tuple(await self._store.homes.of_user(project_id, user_id))
            self._homes.put((project_id, user_id), homes)
        return homes

    async def member_of(self, project_id: int, user_id: int, home_ids: Collection[int]) -> set[int]:
        """Those of `home_ids` that the user is a member of."""

        async def read(ids: list[int]) -> dict[int, bool]:
            return dict.fromkeys(await self._store.homes.member_of(project_id, user_id, ids), True)

        return set(await _remembering(self._members, (project_id, user_id), home_ids, read))

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids`."""

        async def read(ids: list[int]) -> dict[int, bool]:
            return dict.fromkeys(await self._store.homes.existing(project_id, ids), True)

        return set(await _remembering(self._existing, (project_id,), home_ids, read))

    async def locate(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """The devices of the project among `device_ids`; unknown ids are missing."""

        async def read(ids: list[int]) -> Mapping[int, DeviceLocation]:
            return await self._store.devices.locate(project_id, ids)

        return await _remembering(self._locations, (project_id,), device_ids, read)


async def _remembering(
    cache: ExpiringCache[Scope, Value],
    scope: Scope,
    ids: Collection[int],
    read: Callable[[list[int]], Awaitable[Mapping[int, Value]]],
) -> dict[int, Value]:
    """The values of `ids` from `cache`, and by one `read` of those that it does not have."""
    found: dict[int, Value] = {}
    missing: list[int] = []
    for identifier in ids:
        value = cache.get((*scope, identifier))
        if value is None:
            missing.append(identifier)
        else:
            found[identifier] = value
    if missing:
        for identifier, value in (await read(missing)).items():
            cache.put((*scope, identifier), value)
            found[identifier] = value
    return found
