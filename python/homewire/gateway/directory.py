"""Where homes and devices are, and who may see them: the store, remembered for a second."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from homewire.gateway.expiring import ExpiringCache, RecentIds
from homewire.model import DeviceLocation, Project
from homewire.store import Store

CACHE_SECONDS: Final = 1.0
"""As for keys: what changed must be seen within a second."""


class Directory:
    """A read-only view of one node. Every method may raise `errors.Unavailable`.

    Of homes, devices and memberships only what exists is remembered: what does not is asked for again.
    """

    def __init__(self, store: Store, capacity: int) -> None:
        self._store = store
        self._projects: ExpiringCache[int, Project] = ExpiringCache(CACHE_SECONDS, capacity)
        self._homes: ExpiringCache[tuple[int, int], tuple[int, ...]] = ExpiringCache(CACHE_SECONDS, capacity)
        self._locations: ExpiringCache[tuple[int, int], DeviceLocation] = ExpiringCache(
            CACHE_SECONDS, capacity
        )
        self._existing: RecentIds[int] = RecentIds(CACHE_SECONDS, capacity)
        self._members: RecentIds[tuple[int, int]] = RecentIds(CACHE_SECONDS, capacity)

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
        whose = (project_id, user_id)
        known = self._members.known(whose, home_ids)
        missing = [home_id for home_id in home_ids if home_id not in known]
        if missing:
            read = await self._store.homes.member_of(project_id, user_id, missing)
            self._members.remember(whose, read)
            known |= read
        return known

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids`."""
        known = self._existing.known(project_id, home_ids)
        missing = [home_id for home_id in home_ids if home_id not in known]
        if missing:
            read = await self._store.homes.existing(project_id, missing)
            self._existing.remember(project_id, read)
            known |= read
        return known

    async def locate(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """The devices of the project among `device_ids`; unknown ids are missing."""
        found: dict[int, DeviceLocation] = {}
        missing: list[int] = []
        for device_id in device_ids:
            location = self._locations.get((project_id, device_id))
            if location is None:
                missing.append(device_id)
            else:
                found[device_id] = location
        if missing:
            read = await self._store.devices.locate(project_id, missing)
            for device_id, location in read.items():
                self._locations.put((project_id, device_id), location)
            found.update(read)
        return found
