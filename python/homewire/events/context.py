"""What the handlers need from outside, in one object."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from homewire.auth.authenticator import Authenticate, HomeDirectory
from homewire.bus.append import Bus
from homewire.events.queued_commands import Bounds, QueuedCommands
from homewire.limits.rates import Rates
from homewire.server.bodies import BodyReader
from homewire.settings import Settings
from homewire.settings.fields import BULK_BODY_BYTES

KIBIBYTE = 1024


def wall_clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Ingest:
    """The collaborators and bounds of the ingest handlers. Sizes in bytes, times in seconds."""

    bus: Bus
    authenticate: Authenticate
    directory: HomeDirectory
    rates: Rates = field(default_factory=lambda: Rates(Settings()))
    """Charged once it is known who sends, before anything is looked up or read for it."""
    queued_commands: QueuedCommands | None = None
    """Where commands wait for devices that are not connected; without it none may."""
    kept_bounds: Bounds = field(default_factory=lambda: Bounds(100, 256 * KIBIBYTE))
    """What may wait for one device."""
    longest_kept_s: int = 604_800
    reader: BodyReader = field(default_factory=BodyReader)
    shards: int = 64
    clock: Callable[[], int] = wall_clock_ms
    body_bytes: int = 80 * KIBIBYTE
    """64 KiB of event data, and room for the rest of the object."""
    is_connected: Callable[[int, int], Awaitable[bool]] | None = None
    """Whether a device, by project and id, is connected now. Without it no command is refused for that."""
    platform_types: bool = False
    """Whether clients may send event types of the platform (`_…_`)."""
    bulk_body_bytes: int = BULK_BODY_BYTES
