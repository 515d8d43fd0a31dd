"""Kept commands at the gateway: read for a new socket, removed once the kernel has them."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from homewire._core import Core
from homewire.background import in_rounds
from homewire.errors import Unavailable
from homewire.presence.holdings import Device, Holdings
from homewire.store.kept_commands import KeptCommands

AT_ONCE: Final = 16
"""Devices whose queues are shortened at the same time."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 3.0

_log = structlog.get_logger(__name__)


async def deliver_first(
    core: Core, commands: KeptCommands, connection_id: int, project_id: int, device_id: int
) -> None:
    """Give a reservation what is kept for its device. To be called behind `reserve`, before the adoption.

    Raises Unavailable.
    """
    last, envelopes = await commands.read(project_id, device_id)
    if last:
        core.deliver_first(connection_id, last, envelopes)


class Delivered:
    """Takes out of the queues what the kernel took. What a crash keeps it from is delivered once more."""

    def __init__(self, commands: KeptCommands, holdings: Holdings) -> None:
        self._commands = commands
        self._holdings = holdings
        self._tickets: dict[Device, list[int]] = {}
        self._some = asyncio.Event()
        self._delivered = 0

    def written(self, connection_id: int, ticket: int) -> None:
        """The kernel took the whole frame of a kept command."""
        device = self._holdings.device_of(connection_id)
        self._delivered += 1
        if device is not None:
            self._tickets.setdefault(device, []).append(ticket)
            self._some.set()

    async def run(self) -> None:
        """Remove until cancelled."""
        await in_rounds(self._some, self._remove_some, RETRY_S, self._complain)

    async def close(self) -> None:
        """Remove what is left. To be called when `run` has ended."""
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                while self._tickets and await self._remove_some():
                    pass
        except TimeoutError:
            _log.info("commands.not_removed", devices=len(self._tickets))

    def figures(self) -> dict[str, int]:
        """For the metrics."""
        return {
            "commands_delivered": self._delivered,
            "commands_to_remove": sum(map(len, self._tickets.values())),
        }

    def _complain(self) -> None:
        _log.warning("commands.not_removed", devices=len(self._tickets))

    async def _remove_some(self) -> bool:
        """Whether all of it could be done."""
        some = [(device, self._tickets.pop(device)) for device in list(self._tickets)[:AT_ONCE]]
        if not self._tickets:
            self._some.clear()
        outcomes = await asyncio.gather(*(self._remove(device, tickets) for device, tickets in some))
        return all(outcomes)

    async def _remove(self, device: Device, tickets: list[int]) -> bool:
        project_id, device_id = device
        try:
            await self._commands.remove(project_id, device_id, tickets)
        except (Unavailable, OSError):
            self._tickets[device] = tickets + self._tickets.get(device, [])
            self._some.set()
            return False
        except BaseException:
            self._tickets[device] = tickets + self._tickets.get(device, [])
            raise
        return True
