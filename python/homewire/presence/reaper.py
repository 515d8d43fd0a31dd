"""Publishes the end of connections of dead nodes. All nodes do it; each event is published once."""

from __future__ import annotations

from typing import Final

import structlog

from homewire.concurrency import is_cancelling
from homewire.errors import Unavailable
from homewire.presence.store import DEAD, PresenceChange
from homewire.repositories import Store

MAX_PAUSE_S: Final = 1.0
LAST_REAP_S: Final = 60.0
"""Time until a dead node is cleaned up once more: its last changes may have arrived late."""

_log = structlog.get_logger(__name__)


class Reaper:
    """Looks for nodes whose lease ended.

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
