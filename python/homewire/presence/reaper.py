"""Announces what dead nodes held. All nodes do it; each end comes once, by whoever's step it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from homewire.concurrency import is_cancelling
from homewire.errors import Unavailable
from homewire.presence.store import DEAD, PresenceChange
from homewire.repositories import Store
from homewire.store.database import wall_clock_ms

MAX_PAUSE_S: Final = 1.0
FORGOTTEN_S: Final = 60.0
"""How long after that a node is looked after once more: what it sent last may have arrived late."""

_log = structlog.get_logger(__name__)


class Reaper:
    """Looks for nodes whose lease ended.

    Only when Redis was there for a whole lease without interruption, as seen from here: after an outage every
    lease is over, and the others need a moment to renew theirs.
    """

    def __init__(self, store: Store, lease_s: float, clock: Callable[[], int] = wall_clock_ms) -> None:
        self._store = store
        self._lease_s = store.nodes.lease_s = lease_s
        self._clock = clock
        self._reaped: dict[str, float] = {}
        """When what each of the dead left was announced first, by `time.monotonic`."""

    async def run(self) -> None:
        """Look until cancelled."""
        pause_s, there_since = min(MAX_PAUSE_S, self._lease_s / 10), float("inf")
        while not is_cancelling():
            try:
                await self._store.nodes.alive()
                there_since = min(there_since, monotonic())
                if monotonic() - there_since >= self._lease_s:
                    await self.reap()
            except (Unavailable, OSError) as error:
                there_since = float("inf")
                _log.debug("presence.reaper_waits", error=type(error).__name__)
            if not is_cancelling():
                await asyncio.sleep(pause_s)

    async def reap(self) -> None:
        """Announce what every dead node left, and look once more a minute later. Raises Unavailable."""
        nodes = self._store.nodes
        dead = await nodes.condemn()
        for boot_id in dead:
            is_last = monotonic() - self._reaped.get(boot_id, float("inf")) >= FORGOTTEN_S
            if boot_id in self._reaped and not is_last:
                continue
            devices = await self._reap_node(boot_id)
            self._reaped.setdefault(boot_id, monotonic())
            if devices:
                _log.info("presence.reaped", boot_id=boot_id, devices=devices)
            if is_last:
                await nodes.forget(boot_id)
        self._reaped = {boot_id: since for boot_id, since in self._reaped.items() if boot_id in dead}

    async def _reap_node(self, boot_id: str) -> int:
        presence, devices = self._store.presence, 0
        for project_id in await self._store.nodes.projects(boot_id):
            last: list[int] = []
            while held := await presence.held_by(project_id, boot_id):
                if held == last:
                    # A project that is being deleted takes no word any more; what is left goes with it.
                    break
                last, now = held, self._clock()
                await presence.say(
                    project_id, boot_id, [PresenceChange(each, False, DEAD, now) for each in held]
                )
                devices += len(held)
        return devices
