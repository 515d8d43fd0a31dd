"""Records of ended sessions: they can be read for a while, and only the newest of each user and device."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from homewire.errors import Unavailable
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import lua, removing

DELETE_ENDED_SESSIONS: Final = removing(lua(__package__, "delete_ended_sessions"), charges=True)
DELETED_PER_SCRIPT: Final = 50
"""Records that one script deletes: each is ten elements."""


class EndedSessions:
    """Keeps at most `most` ended sessions of each user and device; 0: all, for 30 days."""

    def __init__(self, database: Database, most: int = 0) -> None:
        self._database = database
        self._most = most

    async def delete_oldest(self, slot: ProjectSlot, index: str) -> None:
        """Delete the oldest records beyond the limit. An unreachable Redis is no error for the request that
        opened or ended a session: the next one deletes them."""
        if self._most:
            with suppress(Unavailable):
                await self._unlist(slot, index, self._most)

    async def delete_all(self, slot: ProjectSlot, index: str) -> None:
        """Delete the records of a user or device that is deleted. Raises Unavailable."""
        await self._unlist(slot, index, 0)

    async def _unlist(self, slot: ProjectSlot, index: str, kept: int) -> None:
        more = True
        while more:
            count, oldest = await self._database.read_together(
                ("ZCARD", index), ("ZRANGE", index, 0, DELETED_PER_SCRIPT - 1)
            )
            ids = [each.decode() for each in oldest[: max(0, count - kept)]]
            if not ids:
                return
            answer = await self._database.change(
                DELETE_ENDED_SESSIONS, slot, [index, *map(slot.session, ids)], [self._database.now_ms(), *ids]
            )
            require_ok(answer, project=slot.project_id)
            more = count - len(ids) > kept
