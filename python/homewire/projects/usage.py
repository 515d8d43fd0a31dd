"""How much is stored, as the scripts count it (`accounting.lua`).

Scripts of the counters of what is stored (`accounting.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from homewire.concurrency import is_cancelling
from homewire.errors import Unavailable
from homewire.store.accounting import Quotas
from homewire.store.database import Database, require_ok
from homewire.store.keys import PROJECTS, ProjectSlot
from homewire.store.script import changing, removing

LOOK_S: Final = 60.0
"""Between two looks at what all projects store, for the metrics."""
FORGOTTEN: Final = 100
"""Charges given back by one script."""
CHUNK: Final = 200
"""Projects looked at in one round trip."""
PROJECT: Final = "project"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """How much that is."""

    bytes: int = 0
    records: int = 0


class Usage:
    """What the projects store."""

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self.quotas: Final = quotas
        self._sum = Stored()

    async def of(self, project_id: int, owner: str = PROJECT) -> Stored:
        """What counts for a project, or for a user (`u<id>`) or home (`h<id>`) of it, by now."""
        slot = ProjectSlot(project_id)
        await self.forget_expired(project_id)
        found = await self._database.read("HMGET", slot.usage, f"{owner}:bytes", f"{owner}:records")
        return Stored(*(int(each or 0) for each in found))

    async def forget_expired(self, project_id: int) -> None:
        """Give back what was charged for records whose time is over. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        while True:
            answer = await self._database.change(FORGET_EXPIRED, slot, [], [FORGOTTEN])
            require_ok(answer, project=project_id)
            if int(answer[1]) < FORGOTTEN:
                return

    @property
    def refusals(self) -> Mapping[str, int]:
        """How often a quota refused a change on this node, by the name of its setting."""
        return self._database.quota_refusals

    def figures(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"stored_bytes": self._sum.bytes, "stored_records": self._sum.records}

    async def watch(self) -> None:
        """Look again and again what all projects store together, until cancelled."""
        while not is_cancelling():
            try:
                self._sum = await self._look()
            except Unavailable as error:
                _log.warning("usage.failed", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> Stored:
        found = Stored()
        async for page in self._database.index_pages(PROJECTS):
            for start in range(0, len(page), CHUNK):
                some = page[start : start + CHUNK]
                # One command each: they lie in other slots. Asked for in one turn, they are one round trip.
                reads = (
                    self._database.read(
                        "HMGET", ProjectSlot(each).usage, f"{PROJECT}:bytes", f"{PROJECT}:records"
                    )
                    for each in some
                )
                for stored, records in await asyncio.gather(*reads):
                    found = Stored(found.bytes + int(stored or 0), found.records + int(records or 0))
        return found


FORGET_EXPIRED: Final = removing(
    """
-- ARGV: how many charges at most. How many were given back.
return unannounced('expired_forgotten', tostring(forget_expired(tonumber(ARGV[1]))))
""",
    charges=True,
)

CORRECT_USAGE: Final = changing("""
-- KEYS: …, usage. ARGV: for each counter its name, its value as it was read, its value as it was counted anew
-- All of them, or none if one of them has changed meanwhile.
local usage = KEYS[3]
for i = 1, #ARGV, 3 do
  if (redis.call('HGET', usage, ARGV[i]) or '0') ~= ARGV[i + 1] then return {'moved'} end
end
for i = 1, #ARGV, 3 do
  if ARGV[i + 2] == '0' then
    redis.call('HDEL', usage, ARGV[i])
  else
    redis.call('HSET', usage, ARGV[i], ARGV[i + 2])
  end
end
return unannounced('usage_corrected')
""")
