"""The lease of this node: what it holds counts for as long as this is renewed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from homewire.bus.stopping import asked_to_stop
from homewire.errors import Unavailable
from homewire.store.nodes import Nodes

RENEWALS: Final = 3
"""In the time of one lease."""
RETRY_S: Final = 0.5

_log = structlog.get_logger(__name__)


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
        while not asked_to_stop():
            try:
                await self.renew()
            except (Unavailable, OSError):
                pause = min(RETRY_S, self._lease_s / RENEWALS)
            else:
                pause = self._lease_s / RENEWALS
            if not asked_to_stop():
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
