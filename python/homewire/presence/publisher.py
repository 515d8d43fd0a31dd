"""Publishes presence: the changes of this node's devices, and the end of connections of dead nodes.

Changes of a device are published in their order. Its `_deviceConnected_` is published soon after its 101, and
never before. Devices of a node count as connected as long as its lease is renewed. All nodes look for dead
nodes; each event is published once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

import structlog

from homewire.clock import Clock
from homewire.concurrency import WriteBehind, is_cancelling
from homewire.errors import Unavailable
from homewire.presence.connected import ConnectedDevices, ProjectChanges
from homewire.presence.store import DEAD, Nodes, PresenceChange
from homewire.repositories import Store

BATCHES: Final = 8
"""Batches published at once, so that many small projects do not wait for each other."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 8.0
"""How long a node that stops may publish the end of its connections. Other nodes publish the rest."""
RENEWALS: Final = 3
"""Renewals during one lease."""
LEASE_RETRY_S: Final = 0.5
MAX_PAUSE_S: Final = 1.0
"""The longest time between two checks for dead nodes."""
LAST_REAP_S: Final = 60.0
"""Time until a dead node is cleaned up once more: its last changes may have arrived late."""

_log = structlog.get_logger(__name__)


class PresencePublisher:
    """Publishes the presence changes of this node's devices, and renews its lease."""

    def __init__(self, store: Store, connected_devices: ConnectedDevices, lease_s: float) -> None:
        self._store = store
        self._devices = connected_devices
        self._projects: set[int] = set()
        """Projects that were noted under the current boot id."""
        self._lease = NodeLease(store.nodes, lease_s, self._publish_again, store.clock)
        self._writer = WriteBehind(
            connected_devices, self._write, batches=BATCHES, failed=_warn, retry_s=RETRY_S
        )

    async def run(self) -> None:
        """Publish changes and renew the lease until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lease.run())
            group.create_task(self._writer.run())

    async def close(self) -> None:
        """Disconnect all devices of this node, then end its lease. To be called after `run` has ended."""
        self._devices.close_all()
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                is_clean = await self._writer.drain()
                await self._lease.end(clean=is_clean)
        except (Unavailable, OSError):
            _log.info("presence.shutdown_incomplete", devices=self._devices.waiting())

    async def _write(self, batch: ProjectChanges) -> None:
        project_id, changes = batch
        await self._lease.require()
        boot_id = self._lease.boot_id
        if project_id not in self._projects:
            await self._store.nodes.add_project(boot_id, project_id)
            self._projects.add(project_id)
        # Changes that are written twice do no harm: the record has their generation.
        await self._store.presence.publish(project_id, boot_id, changes)

    def _publish_again(self) -> None:
        self._projects.clear()
        self._devices.publish_again()


def _warn(waiting: int) -> None:
    _log.warning("presence.publish_failed", devices=waiting)


class NodeLease:
    """The lease of this node. `lost` is called when the node was declared dead and has a new boot id."""

    def __init__(self, nodes: Nodes, lease_s: float, lost: Callable[[], None], clock: Clock) -> None:
        self.boot_id = secrets.token_hex(8)
        self._nodes = nodes
        self._lease_s = lease_s
        self._lost = lost
        self._clock = clock
        self._new = True
        self._until = float("-inf")
        self._renewing = asyncio.Lock()

    async def run(self) -> None:
        """Renew until cancelled, also after times without Redis."""
        while not is_cancelling():
            try:
                await self.renew()
            except (Unavailable, OSError):
                pause = min(LEASE_RETRY_S, self._lease_s / RENEWALS)
            else:
                pause = self._lease_s / RENEWALS
            if not is_cancelling():
                await self._clock.sleep(pause)

    async def require(self) -> None:
        """Make sure that the lease is valid. Raises Unavailable."""
        if self._clock.monotonic() >= self._until:
            await self.renew()

    async def renew(self) -> None:
        """Renew the lease. Raises Unavailable."""
        async with self._renewing:
            asked = self._clock.monotonic()
            lease_ms = round(self._lease_s * 1000)
            while not await self._nodes.renew(self.boot_id, lease_ms, new=self._new):
                _log.warning("presence.lease_lost", boot_id=self.boot_id)
                self.boot_id, self._new = secrets.token_hex(8), True
                self._lost()
            self._new, self._until = False, asked + self._lease_s

    async def end(self, *, clean: bool) -> None:
        """End the lease. Unless `clean`, other nodes publish the rest at once."""
        if self._new:
            return
        if clean:
            await self._nodes.remove(self.boot_id)
        else:
            await self._nodes.release(self.boot_id)


class Reaper:
    """Looks for nodes whose lease ended, and publishes the end of their connections.

    It does so only after Redis was available for a whole lease without interruption: after an outage all
    leases have ended, and the nodes need some time to renew them.
    """

    def __init__(self, store: Store, lease_s: float) -> None:
        self._store = store
        self._lease_s = store.nodes.lease_s = lease_s
        self._clock = store.clock
        self._reaped: dict[str, float] = {}
        """When each dead node was cleaned up first, in monotonic seconds."""

    async def run(self) -> None:
        """Look for dead nodes until cancelled."""
        pause_s, available_since = min(MAX_PAUSE_S, self._lease_s / 10), float("inf")
        while not is_cancelling():
            try:
                await self._store.nodes.alive()
                available_since = min(available_since, self._clock.monotonic())
                if self._clock.monotonic() - available_since >= self._lease_s:
                    await self.reap()
            except (Unavailable, OSError) as error:
                available_since = float("inf")
                _log.debug("presence.reaper_waits", error=type(error).__name__)
            if not is_cancelling():
                await self._clock.sleep(pause_s)

    async def reap(self) -> None:
        """Clean up after every dead node, and once more a minute later. Raises Unavailable."""
        nodes = self._store.nodes
        dead = await nodes.declare_dead()
        for boot_id in dead:
            is_last = self._clock.monotonic() - self._reaped.get(boot_id, float("inf")) >= LAST_REAP_S
            if boot_id in self._reaped and not is_last:
                continue
            devices = await self._reap_node(boot_id)
            self._reaped.setdefault(boot_id, self._clock.monotonic())
            if devices:
                _log.info("presence.reaped", boot_id=boot_id, devices=devices)
            if is_last:
                await nodes.remove(boot_id)
        self._reaped = {boot_id: since for boot_id, since in self._reaped.items() if boot_id in dead}

    async def _reap_node(self, boot_id: str) -> int:
        presence, count = self._store.presence, 0
        for project_id in await self._store.nodes.projects(boot_id):
            last: list[int] = []
            while devices := await presence.of_node(project_id, boot_id):
                if devices == last:
                    # A project that is being deleted accepts no changes; the rest is deleted with it.
                    break
                last, now = devices, self._clock.now_ms()
                await presence.publish(
                    project_id, boot_id, [PresenceChange(each, False, DEAD, now) for each in devices]
                )
                count += len(devices)
        return count
