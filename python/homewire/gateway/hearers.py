"""Who is told what the core has to say of connections."""

from __future__ import annotations

from dataclasses import dataclass

from homewire.gateway.delivered import Delivered
from homewire.gateway.pump import KernelBounds, Pumps
from homewire.lifetimes.in_use import KeysInUse
from homewire.presence.holdings import Holdings
from homewire.settings import Settings
from homewire.store.kept_commands import KeptCommands


@dataclass(frozen=True, slots=True)
class Hearers:
    """Who is told what became of connections."""

    pumps: Pumps
    holdings: Holdings
    delivered: Delivered
    keys_in_use: KeysInUse

    @classmethod
    def of(cls, settings: Settings, kept_commands: KeptCommands) -> Hearers:
        """New ones, that know of no connection yet."""
        holdings = Holdings()
        pumps = Pumps(settings.close_s, KernelBounds.of(settings))
        return cls(pumps, holdings, Delivered(kept_commands, holdings), KeysInUse())

    def closed(self, connection_id: int) -> None:
        """The core let go of a connection."""
        self.pumps.core_ended(connection_id)
        self.holdings.closed(connection_id)
        self.keys_in_use.closed(connection_id)
