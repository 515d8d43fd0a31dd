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

from homewire.concurrency import WriteBehind, is_cancelling
from homewire.errors import Unavailable
from homewire.presence.connected import ConnectedDevices, ProjectChanges
from homewire.presence.nodes import Nodes
from homewire.repositories import Store

BATCHES: Final = 8
"""Number of batches written concurrently, so that small projects do not wait for each other."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 8.0
"""Maximum time to disconnect all devices at shutdown. Other nodes do the rest."""

_log = structlog.get_logger(__name__)


class PresencePublisher:
    """Stores the presence changes of this node's devices, and renews the node's lease."""

    def __init__(self, store: Store, connected_devices: ConnectedDevices, lease_s: float) -> None:
        self._store = store
        self._connected = connected_devices
        self._noted: set[int] = set()
        """Projects that the node's record has under the present boot id."""
        self._lease = Lease(store.nodes, lease_s, self._start_anew)
        self._writer = WriteBehind(
            connected_devices, self._write, batches=BATCHES, failed=_warn, retry_s=RETRY_S
        )

    async def run(self) -> None:
        """Write changes and renew the lease until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lease.run())
            group.create_task(self._writer.run())

    async def close(self) -> None:
        """Disconnect all devices of this node, then end its lease. Call it when `run` has ended."""
        self._connected.close_all()
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                tidy = await self._writer.drain()
                await self._lease.end(tidy=tidy)
        except (Unavailable, OSError):
            _log.info("presence.end_not_written", devices=self._connected.waiting())

    async def _write(self, batch: ProjectChanges) -> None:
        project_id, changes = batch
        await self._lease.require()
        boot_id = self._lease.boot_id
        if project_id not in self._noted:
            await self._store.nodes.note_project(boot_id, project_id)
            self._noted.add(project_id)
        # Changes that are written twice do no harm: the record has their generation.
        await self._store.presence.say(project_id, boot_id, changes)

    def _start_anew(self) -> None:
        self._noted.clear()
        self._connected.say_again()


def _warn(waiting: int) -> None:
    _log.warning("presence.not_written", devices=waiting)


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
