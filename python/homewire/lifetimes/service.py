"""Sessions of a node: their uses and their sockets, put together."""

from __future__ import annotations

import asyncio
from typing import Final

from homewire.lifetimes.deadlines import Deadlines
from homewire.lifetimes.in_use import KeysInUse
from homewire.lifetimes.keeper import Keeper
from homewire.lifetimes.sockets import LOOK_EVERY_S, SocketCore, Sockets
from homewire.lifetimes.uses import Uses
from homewire.store.session_uses import NOTES, SessionUses, noted_every_ms


class Lifetimes:
    """What makes sessions of this node's users live on, and closes what outlived them."""

    def __init__(
        self, core: SocketCore, keys: KeysInUse, sessions: SessionUses, session_ttl_s: float
    ) -> None:
        """`session_ttl_s` is how long sessions live unused: with short lives it is looked more often."""
        deadlines = Deadlines()
        self.uses: Final = Uses(noted_every_ms(round(session_ttl_s * 1000)))
        self.sockets: Final = Sockets(
            core, keys, sessions, deadlines, min(LOOK_EVERY_S, session_ttl_s / NOTES)
        )
        self._keeper = Keeper(sessions, self.uses, deadlines)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keeper.run())
            group.create_task(self.sockets.run())

    async def close(self) -> None:
        """Write what waits. To be called when `run` has ended."""
        await self._keeper.close()

    def figures(self) -> dict[str, int]:
        """For the metrics."""
        return self.uses.figures() | self.sockets.figures()
