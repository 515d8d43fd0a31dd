"""The nodes of the deployment, each by the id of its boot, and which of them live.

A node lives while its lease does, which it renews three times as often as need be. Leases are judged by
Redis' clock alone. One that ended may still be renewed (Redis was away) until some node condemned it:
from then on that boot is dead for good, so that what it left can be announced once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from time import monotonic
from typing import Final

from homewire.store.database import PAGE, Database
from homewire.store.keys import NODES, node_projects
from homewire.store.scripts.nodes import ALIVE, CONDEMN, RENEW

BELIEVED_S: Final = 0.25
"""How long one answer about who lives does for everybody who asks here."""


class Nodes:
    """Leases of nodes, and the projects that each has devices of."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._alive: frozenset[str] = frozenset()
        self._as_of = float("-inf")
        self._asking = asyncio.Lock()

    async def alive(self, since: float = 0.0) -> frozenset[str]:
        """The boot ids of the nodes that live, as of a quarter of a second ago at most.

        With `since` (by `time.monotonic`) not as of before it.
        """
        if not self._is_known(since):
            async with self._asking:
                if not self._is_known(since):
                    asked = monotonic()
                    found = await self._database.ask(ALIVE, [NODES])
                    self._alive = frozenset(boot_id.decode() for boot_id in found)
                    self._as_of = asked
        return self._alive

    async def living(self, named: Set[str]) -> Set[str]:
        """Those of the `named` that live. One that began a moment ago does."""
        asked = monotonic()
        if not named:
            return named
        living = named & await self.alive()
        # Who is named was alive when it was written down, perhaps after what we know was asked for.
        return living if living == named else named & await self.alive(asked)

    def _is_known(self, since: float) -> bool:
        return self._as_of >= max(since, monotonic() - BELIEVED_S)

    async def renew(self, boot_id: str, lease_ms: int, *, new: bool = False) -> bool:
        """Live for another `lease_ms` from now on. False: this boot is dead, and takes another id.

        `new` begins a lease of a boot that nobody knows yet.
        """
        answer = await self._database.change_outside(RENEW, [NODES], [boot_id, lease_ms, int(new)])
        return bool(answer)

    async def condemn(self) -> dict[str, int]:
        """Condemn each node whose lease ended; all that are condemned, and since how long in ms."""
        answer = await self._database.change_outside(CONDEMN, [NODES], [])
        return {boot_id.decode(): int(age) for boot_id, age in zip(answer[::2], answer[1::2], strict=True)}

    async def resign(self, boot_id: str) -> None:
        """End one's own lease: what is left of this boot may be tidied up at once."""
        await self._database.write("ZADD", NODES, "XX", 1, boot_id)

    async def forget(self, boot_id: str) -> None:
        """A node of which nothing is left."""
        await self._database.write("UNLINK", node_projects(boot_id))
        await self._database.write("ZREM", NODES, boot_id)

    async def note_project(self, boot_id: str, project_id: int) -> None:
        """Before a node's first device of a project: so that whoever reaps knows where to look."""
        await self._database.write("SADD", node_projects(boot_id), project_id)

    async def projects(self, boot_id: str) -> list[int]:
        """Where a node may have left something."""
        found: set[int] = set()
        cursor = 0
        while True:
            cursor, page = await self._database.read(
                "SSCAN", node_projects(boot_id), cursor, "COUNT", PAGE // 2
            )
            found.update(map(int, page))
            if int(cursor) == 0:
                return sorted(found)
