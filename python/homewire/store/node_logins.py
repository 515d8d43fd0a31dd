"""When devices logged in, and when that was tried in vain: what a node session tells of (spec 002)."""

from __future__ import annotations

from typing import NamedTuple

from homewire.store.database import Database
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.users import NOTE_FAILED_LOGIN


class Logins(NamedTuple):
    """The last ones, in ms since 1970; 0: never."""

    last_ms: int
    last_failed_ms: int


class NodeLogins:
    """Of the devices of a project. Those that succeeded are noted by the script that opens the session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, project_id: int, device_id: int) -> Logins | None:
        """Those of a device; None if there is no such device."""
        record = await self._database.read_hash(ProjectSlot(project_id).device(device_id))
        if not record:
            return None
        return Logins(int(record.get("last_login", 0)), int(record.get("last_failed_login", 0)))

    async def note_failed(self, project_id: int, device_id: int) -> None:
        """Somebody tried in vain to log in as this device. For an unknown id as much is done, for nothing."""
        slot = ProjectSlot(project_id)
        await self._database.change(
            NOTE_FAILED_LOGIN, slot, [slot.device(device_id)], [self._database.now_ms()]
        )
