"""The nodes of the deployment, each by its boot id, and their leases.

A node is alive while its lease is, which it renews three times in each lease. The end of a lease is a time of
Redis' clock, which may be stepped: a hub without a battery learns the time minutes after its start. So each
process notes by its monotonic time when it saw a lease renewed, and how long the lease then had to go. Only
a lease that a process sees for the first time is compared with Redis' clock.

A lease that ended can be renewed (Redis was unavailable) until a node declares its owner dead. From then on
this boot id is dead for good, so that the end of its connections is announced once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from homewire.store.database import PAGE, Database
from homewire.store.keys import NODES, node_projects
from homewire.store.script import lua, reading, standalone

LEASES: Final = reading(lua(__package__, "list_leases"))
RENEW: Final = standalone(lua(__package__, "renew_lease"))
DECLARE_DEAD: Final = standalone(lua(__package__, "declare_dead"))

RELEASED: Final = 1
"""The end of a lease that its node released, in ms."""
MAX_DECLARED_DEAD: Final = 100
"""Nodes in one script."""
CACHE_S: Final = 0.25
"""How long an answer about the nodes that are alive is reused."""


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """A lease as this process read it; times of its monotonic clock, in seconds."""

    score: bytes
    """Its end by Redis' clock, as Redis writes it. A different one means that the lease was renewed."""
    at: float
    until: float
    is_first: bool
    """This process has not seen it being renewed."""


class Nodes:
    """Leases of nodes, and the projects of their connected devices."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._monotonic = database.clock.monotonic
        self.lease_s = 0.0
        """The length of leases, in a process that watches them all the time."""
        self._leases: dict[str, ObservedLease] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def alive(self, since: float = 0.0) -> frozenset[str]:
        """The boot ids of the nodes that are alive, read at most `CACHE_S` ago.

        With `since`, a monotonic time, read after it.
        """
        if not self._is_known(since):
            async with self._reading:
                if not self._is_known(since):
                    asked = self._monotonic()
                    self._note(asked, await self._database.ask(LEASES, [NODES]))
                    self._read_at = asked
        now = self._monotonic()
        return frozenset(boot_id for boot_id, seen in self._leases.items() if now < seen.until)

    def _note(self, at: float, found: Sequence[bytes]) -> None:
        now_ms, known, self._leases = int(found[0]), self._leases, {}
        for name, score in zip(found[1::2], found[2::2], strict=True):
            boot_id = name.decode()
            before = known.get(boot_id)
            if before is None or before.score != score:
                before = self._sighting(score, at, now_ms, is_first=before is None)
            self._leases[boot_id] = before

    def _sighting(self, score: bytes, at: float, now_ms: int, *, is_first: bool) -> ObservedLease:
        left_s = max(0.0, (float(score) - now_ms) / 1000)
        # Redis' clock may have been stepped between the renewal and this read.
        is_renewed = not is_first and float(score) > RELEASED
        return ObservedLease(score, at, at + (max(left_s, self.lease_s) if is_renewed else left_s), is_first)

    async def living(self, named: Set[str]) -> Set[str]:
        """The nodes among `named` that are alive, also one that started a moment ago."""
        asked = self._monotonic()
        if not named:
            return named
        living = named & await self.alive()
        # A named node was alive when its name was written, which may be later than the cached answer.
        return living if living == named else named & await self.alive(asked)

    def _is_known(self, since: float) -> bool:
        return self._read_at >= max(since, self._monotonic() - CACHE_S)

    async def renew(self, boot_id: str, lease_ms: int, *, new: bool = False) -> bool:
        """Renew the lease of a node for `lease_ms`. False: it was declared dead and needs another boot id.

        `new` begins the lease of a new boot id.
        """
        answer = await self._database.change_outside(RENEW, [NODES], [boot_id, lease_ms, int(new)])
        return bool(answer)

    async def declare_dead(self) -> frozenset[str]:
        """Declare the nodes dead whose leases ended. Returns the boot ids of all dead nodes.

        The caller has called `alive` regularly for at least `lease_s`.
        """
        await self.alive(self._monotonic())
        now = self._monotonic()
        over = [(boot_id, seen.score) for boot_id, seen in self._leases.items() if self._is_over(seen, now)]
        arguments = [part for each in over[:MAX_DECLARED_DEAD] for part in each]
        dead = await self._database.change_outside(DECLARE_DEAD, [NODES], arguments)
        return frozenset(boot_id.decode() for boot_id in dead)

    def _is_over(self, seen: ObservedLease, now: float) -> bool:
        # The end of a lease that was not seen being renewed may be a time before Redis' clock was stepped
        # back.
        return now >= (min(seen.until, seen.at + self.lease_s) if seen.is_first else seen.until)

    async def release(self, boot_id: str) -> None:
        """End the lease of a node that stops: other nodes may clean up after it at once."""
        await self._database.write("ZADD", NODES, "XX", RELEASED, boot_id)

    async def remove(self, boot_id: str) -> None:
        """Remove a node that left nothing to clean up."""
        await self._database.write("UNLINK", node_projects(boot_id))
        await self._database.write("ZREM", NODES, boot_id)

    async def add_project(self, boot_id: str, project_id: int) -> None:
        """Note a project before the node's first device of it: other nodes look there if the node dies."""
        await self._database.write("SADD", node_projects(boot_id), project_id)

    async def projects(self, boot_id: str) -> list[int]:
        """The projects whose devices a node has or had, ascending."""
        found: set[int] = set()
        cursor = 0
        while True:
            cursor, page = await self._database.read(
                "SSCAN", node_projects(boot_id), cursor, "COUNT", PAGE // 2
            )
            found.update(map(int, page))
            if int(cursor) == 0:
                return sorted(found)
