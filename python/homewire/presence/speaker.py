"""Says what this node holds: many devices in one step, behind the handshakes and never in their way.

What is promised of the order: a device's words are written in the order in which they happened; its
`_deviceConnected_` is on its way within a moment of its 101, but not before it.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from homewire.background import in_rounds
from homewire.errors import Unavailable
from homewire.presence.holdings import Batch, Holdings
from homewire.presence.lease import Lease
from homewire.store import Store

BATCHES: Final = 8
"""Said at once, so that many small projects do not wait for each other."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 8.0
"""How long a node that ends may take to say so of all its devices. Others do what is left."""

_log = structlog.get_logger(__name__)


class Speaker:
    """Between the holdings and the store."""

    def __init__(self, store: Store, holdings: Holdings, lease_s: float) -> None:
        self._store = store
        self._holdings = holdings
        self._noted: set[int] = set()
        self._lease = Lease(store.nodes, lease_s, self._start_anew)

    async def run(self) -> None:
        """Speak until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lease.run())
            group.create_task(in_rounds(self._holdings.to_say, self._round, RETRY_S, self._complain))

    async def close(self) -> None:
        """What is still held is held no more, and this node neither. To be called when `run` has ended."""
        self._holdings.close_all()
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                while self._holdings.waiting():
                    if not await self._round():
                        break
                await self._lease.end(tidy=not self._holdings.waiting())
        except (Unavailable, OSError):
            _log.info("presence.end_not_said", devices=self._holdings.waiting())

    def _complain(self) -> None:
        _log.warning("presence.not_said", devices=self._holdings.waiting())

    async def _round(self) -> bool:
        """Say some of what is to be said. Whether all of that could be."""
        try:
            await self._lease.require()
        except (Unavailable, OSError):
            return False
        boot_id, batches = self._lease.boot_id, self._holdings.take(BATCHES)
        try:
            said = await asyncio.gather(*(self._say(boot_id, batch) for batch in batches))
        except BaseException:
            # What was said of it does no harm when it is said again.
            self._holdings.put_back(batches)
            raise
        failed = [batch for batch, is_said in zip(batches, said, strict=True) if not is_said]
        self._holdings.put_back(failed)
        return not failed

    async def _say(self, boot_id: str, batch: Batch) -> bool:
        project_id, words = batch
        try:
            if project_id not in self._noted:
                await self._store.nodes.note_project(boot_id, project_id)
                self._noted.add(project_id)
            await self._store.presence.say(project_id, boot_id, words)
        except (Unavailable, OSError):
            return False
        return True

    def _start_anew(self) -> None:
        self._noted.clear()
        self._holdings.say_again()
