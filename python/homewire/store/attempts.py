"""How often something may be tried, on all nodes together: by an address, and for an account.

An attempt leases a place in each of its limits before it is made, so that many at once are no more than one
after the other. A wrong one is counted; every other one gives its place back. What cannot be given back,
because Redis or the node went away, ends with the lease.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homewire.errors import TooManyRequests
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.attempts import COUNT_ATTEMPT, RELEASE_ATTEMPT, TAKE_ATTEMPT

HASH_DIGITS: Final = 32
LEASE_MS: Final = 30_000
"""How long an attempt without a verdict takes a place: longer than a request that waits for everything."""
LIMITS: Final = (
    "account_attempts",
    "address_attempts",
    "account_messages",
    "address_messages",
    "user_passwords",
)
"""The settings that are limits of attempts, for the metrics."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How often one of something may try, in a window."""

    setting: str
    """The limit's name; what is counted, too."""
    most: int
    """0: as often as it likes."""
    whose: str
    """An address, or what an account is known by."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The places of one attempt."""

    project_id: int
    attempt_id: str
    window_ms: int
    allowances: tuple[Allowance, ...]
    """Those that have a limit."""


class Attempts:
    """Counts attempts of a project. A window begins with the first that counts; the count ends with it."""

    def __init__(self, database: Database, refusals: Counter[str]) -> None:
        """`refusals` is where it counts how often each limit refused on this node."""
        self._database = database
        self._refusals = refusals
        refusals.update(dict.fromkeys(LIMITS, 0))

    async def take(self, project_id: int, allowances: Sequence[Allowance], window_ms: int) -> Lease:
        """Lease a place for an attempt, before it is made: of many at once no more than the limit get one.

        Raises TooManyRequests naming the setting whose limit was reached (no place is leased then), and
        UnknownRecord without the project.
        """
        limited = tuple(each for each in allowances if each.most > 0)
        lease = Lease(project_id, secrets.token_hex(8), window_ms, limited)
        if not limited:
            return lease
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            TAKE_ATTEMPT,
            slot,
            _counters_and_leases(slot, limited),
            [lease.attempt_id, LEASE_MS, *(each.most for each in limited)],
        )
        if answer[0] == "limit":
            reached = limited[int(answer[1])]
            self._refusals[reached.setting] += 1
            # A counter that went in this very moment has -2 ms left.
            seconds = max(1, -(-int(answer[2]) // 1000))
            raise TooManyRequests(reached.setting, seconds, most=reached.most)
        require_ok(answer, project=project_id)
        return lease

    async def count(self, lease: Lease) -> None:
        """The attempt was wrong: it counts until the end of the window."""
        if lease.allowances:
            slot = ProjectSlot(lease.project_id)
            names = _counters_and_leases(slot, lease.allowances)
            answer = await self._database.change(
                COUNT_ATTEMPT, slot, names, [lease.attempt_id, lease.window_ms]
            )
            require_ok(answer, project=lease.project_id)

    async def give_back(self, lease: Lease) -> None:
        """The attempt was not wrong: its places are free. Doing that twice is harmless."""
        if lease.allowances:
            slot = ProjectSlot(lease.project_id)
            names = [slot.attempt_leases(each.setting, _hash(each.whose)) for each in lease.allowances]
            answer = await self._database.change(RELEASE_ATTEMPT, slot, names, [lease.attempt_id])
            if answer != ["unknown", "project"]:
                require_ok(answer)


def _counters_and_leases(slot: ProjectSlot, allowances: Sequence[Allowance]) -> list[str]:
    names: list[str] = []
    for each in allowances:
        whose = _hash(each.whose)
        names += slot.attempts(each.setting, whose), slot.attempt_leases(each.setting, whose)
    return names


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:HASH_DIGITS]
