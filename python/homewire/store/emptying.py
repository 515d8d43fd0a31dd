"""Emptying a deleted home: nobody can join or enter it any more, but what was in it is still there."""

from __future__ import annotations

from typing import Final

from homewire.store.database import Database, require_ok
from homewire.store.devices import Devices
from homewire.store.entities import Entities
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.homes import EMPTY_HOME, SETTLE_HOME

MEMBERS_TAKEN: Final = 110
"""Members that one script takes out; of the 1,000 elements that it may touch, each takes nine at most."""


class Emptying:
    """The sweep behind the deletion of a home. It can be interrupted anywhere, and repeated."""

    def __init__(self, database: Database, devices: Devices, entities: Entities) -> None:
        self._database = database
        self._devices = devices
        self._entities = entities

    async def empty(self, slot: ProjectSlot, home_id: int) -> None:
        """Take everything out of a home whose tombstone stands; the tombstone goes last."""
        await self._take_members(slot, home_id)
        await self._devices.leave_deleted_home(slot.project_id, home_id)
        await self._entities.leave_deleted_home(slot.project_id, home_id)
        values = slot.values("home", home_id), slot.value_keys("home", home_id)
        require_ok(
            await self._database.change(SETTLE_HOME, slot, [*values, slot.deleted_homes], [home_id]),
            project=slot.project_id,
        )

    async def _take_members(self, slot: ProjectSlot, home_id: int) -> None:
        async for fields, _ in self._database.hash_pages(slot.home_members(home_id)):
            users = [int(user_id) for user_id in fields]
            for start in range(0, len(users), MEMBERS_TAKEN):
                some = users[start : start + MEMBERS_TAKEN]
                names = [
                    name
                    for each in some
                    for name in (slot.user(each), slot.user_homes(each), slot.user_pending(each))
                ]
                shared = [slot.home_members(home_id), slot.emails, slot.phones, slot.invited_users]
                require_ok(await self._database.change(EMPTY_HOME, slot, [*shared, *names], [home_id, *some]))
