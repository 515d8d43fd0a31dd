"""Says what this node holds: many devices in one step, behind the handshakes and never in their way.

What is promised of the order: a device's words are written in the order in which they happened; its
`_deviceConnected_` is on its way within a moment of its 101, but not before it.

The lease of this node: what it holds counts for as long as this is renewed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from homewire.concurrency import is_cancelling, run_when_signaled
from homewire.errors import Unavailable
from homewire.presence.connected import Batch, ConnectedDevices
from homewire.presence.nodes import Nodes
from homewire.repositories import Store

BATCHES: Final = 8
"""Said at once, so that many small projects do not wait for each other."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 8.0
"""How long a node that ends may take to say so of all its devices. Others do what is left."""

_log = structlog.get_logger(__name__)


class PresencePublisher:
    """Between the holdings and the store."""

    def __init__(self, store: Store, connected_devices: ConnectedDevices, lease_s: float) -> None:
        self._store = store
        self._holdings = connected_devices
        self._noted: set[int] = set()
        self._lease = Lease(store.nodes, lease_s, self._start_anew)

    async def run(self) -> None:
        """Speak until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lease.run())
            group.create_task(run_when_signaled(self._holdings.to_say, self._round, RETRY_S, self._complain))

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


RENEWALS: Final = 3
"""In the time of one lease."""
LEASE_RETRY_S: Final = 0.5


class Lease:
    """This node under its boot id. `lost` is called when it counts as dead and goes on under another one."""

    def __init__(self, nodes: Nodes, lease_s: float, lost: Callable[[], None]) -> None:
        self.boot_id = secrets.token_hex(8)
        self._nodes = nodes
        self._lease_s = lease_s
        self._lost = lost
        self._new = True
        self._until = float("-inf")
        self._renewing = asyncio.Lock()

    async def run(self) -> None:
        """Renew until cancelled. A Redis that is away is waited for."""
        while not is_cancelling():
            try:
                await self.renew()
            except (Unavailable, OSError):
                pause = min(LEASE_RETRY_S, self._lease_s / RENEWALS)
            else:
                pause = self._lease_s / RENEWALS
            if not is_cancelling():
                await asyncio.sleep(pause)

    async def require(self) -> None:
        """Return while the lease surely lives. Raises Unavailable."""
        if monotonic() >= self._until:
            await self.renew()

    async def renew(self) -> None:
        """Live on for a whole lease. Raises Unavailable."""
        async with self._renewing:
            asked = monotonic()
            lease_ms = round(self._lease_s * 1000)
            while not await self._nodes.renew(self.boot_id, lease_ms, new=self._new):
                _log.warning("presence.lease_lost", boot_id=self.boot_id)
                self.boot_id, self._new = secrets.token_hex(8), True
                self._lost()
            self._new, self._until = False, asked + self._lease_s

    async def end(self, *, tidy: bool) -> None:
        """This node ends. `tidy`: nothing is left of it; else others announce what is, at once."""
        if self._new:
            return
        if tidy:
            await self._nodes.forget(self.boot_id)
        else:
            await self._nodes.resign(self.boot_id)
