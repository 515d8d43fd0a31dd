"""Writes down which sessions were used: many in one step, behind the requests and never in their way.

Sessions of a node: their uses and their sockets, put together.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from homewire.auth.tokens import key_tag
from homewire.concurrency import run_when_signaled
from homewire.errors import Unavailable
from homewire.sessions.activity import (
    NOTES,
    ActivityBuffer,
    Batch,
    SessionDeadline,
    SessionUses,
    Use,
    noted_every_ms,
)
from homewire.sessions.deadlines import ActiveKeys, Deadlines, SocketKey
from homewire.sessions.sockets import LOOK_EVERY_S, SocketCore, Sockets

GATHERED_S: Final = 0.25
"""How long the first use waits for others that share its step."""
BATCHES: Final = 32
"""Written at once: scripts of small projects share a write."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 2.0
"""How long a node that ends may take to write what waits. What is lost is a minute of last accesses."""

_log = structlog.get_logger(__name__)


class ActivityWriter:
    """Between the uses and the store."""

    def __init__(self, sessions: SessionUses, uses: ActivityBuffer, deadlines: Deadlines) -> None:
        self._sessions = sessions
        self._uses = uses
        self._deadlines = deadlines

    async def run(self) -> None:
        """Write until cancelled. A Redis that is away is waited for."""
        await run_when_signaled(self._uses.to_write, self._gather_and_write, RETRY_S, self._complain)

    async def close(self) -> None:
        """Write what waits. To be called when `run` has ended."""
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                await self._write_all()
        except TimeoutError:
            return

    def _complain(self) -> None:
        _log.warning("sessions.uses_not_written", waiting=self._uses.waiting())

    async def _gather_and_write(self) -> bool:
        await asyncio.sleep(GATHERED_S)
        return await self._write_all()

    async def _write_all(self) -> bool:
        """Write what waits. Whether all of it could be; if not, the rest waits on."""
        while batches := self._uses.take(BATCHES):
            if not all(await asyncio.gather(*map(self._write, batches))):
                return False
        return True

    async def _write(self, batch: Batch) -> bool:
        project_id, uses = batch
        try:
            standings = await self._sessions.touch(project_id, uses)
        except (Unavailable, OSError):
            # Noting twice does no harm: the second comes too early.
            self._uses.put_back(project_id, uses)
            return False
        self._uses.written(len(uses))
        for use, standing in zip(uses, standings, strict=True):
            self._learn(project_id, use, standing)
        return True

    def _learn(self, project_id: int, use: Use, standing: SessionDeadline | None) -> None:
        if standing is not None:
            key = SocketKey(project_id, use.user_id, key_tag(use.key_hash), use.device_id)
            self._deadlines.learn(key, standing)


class SessionExpiry:
    """What makes sessions of this node's users live on, and closes what outlived them."""

    def __init__(
        self, core: SocketCore, keys: ActiveKeys, sessions: SessionUses, session_ttl_s: float
    ) -> None:
        """`session_ttl_s` is how long sessions live unused: with short lives it is looked more often."""
        deadlines = Deadlines()
        self.uses: Final = ActivityBuffer(noted_every_ms(round(session_ttl_s * 1000)))
        self.sockets: Final = Sockets(
            core, keys, sessions, deadlines, min(LOOK_EVERY_S, session_ttl_s / NOTES)
        )
        self._keeper = ActivityWriter(sessions, self.uses, deadlines)

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
