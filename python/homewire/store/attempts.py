"""How often something may be tried, on all nodes together: by an address, and for an account."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homewire.errors import TooManyRequests
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.attempts import GIVE_BACK_ATTEMPT, TAKE_ATTEMPT

HASH_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class Allowance:
    """How often one of something may try, in a window."""

    setting: str
    """The limit's name; what is counted, too."""
    most: int
    """0: as often as it likes."""
    whose: str
    """An address, or what an account is known by."""


class Attempts:
    """Counts attempts of a project. A window begins with the first attempt, and its count goes with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, project_id: int, allowances: Sequence[Allowance], window_ms: int) -> None:
        """Count an attempt, before it is made: of many at once no more than the limit are let through.

        Raises TooManyRequests naming the setting whose limit was reached (nothing is counted then), and
        UnknownRecord without the project.
        """
        limited = [each for each in allowances if each.most > 0]
        if not limited:
            return
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            TAKE_ATTEMPT, slot, _counters(slot, limited), [window_ms, *(each.most for each in limited)]
        )
        if answer[0] == "limit":
            reached = limited[int(answer[1])]
            # A counter that went in this very moment has -2 ms left.
            seconds = max(1, -(-int(answer[2]) // 1000))
            raise TooManyRequests(reached.setting, seconds, most=reached.most)
        require_ok(answer, project=project_id)

    async def give_back(self, project_id: int, allowances: Sequence[Allowance]) -> None:
        """Uncount an attempt that was right: limits are for those who guess."""
        limited = [each for each in allowances if each.most > 0]
        if not limited:
            return
        slot = ProjectSlot(project_id)
        answer = await self._database.change(GIVE_BACK_ATTEMPT, slot, _counters(slot, limited))
        if answer != ["unknown", "project"]:
            require_ok(answer)


def _counters(slot: ProjectSlot, allowances: Sequence[Allowance]) -> list[str]:
    return [slot.attempts(each.setting, _hash(each.whose)) for each in allowances]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:HASH_DIGITS]
