"""What the handlers need from outside, in one object."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from homewire.bus import Bus
from homewire.ingest.bodies import Bodies
from homewire.model import DeviceLocation, Principal
from homewire.overload import Rates
from homewire.settings import Settings

KIBIBYTE = 1024


class Directory(Protocol):
    """Where homes and devices are: the gateway's cached view of the store.

    An answer may be older than a change that was answered already, by as much as this node's tail is
    behind: what comes in during these milliseconds is taken as from before the change.

    Each method may raise `errors.Unavailable`. Ids of other projects are unknown ids.
    """

    async def locate(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """The devices of the project among `device_ids`; unknown ids are missing."""
        ...

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids`."""
        ...

    async def member_of(self, project_id: int, user_id: int, home_ids: Collection[int]) -> set[int]:
        """Those of `home_ids` that the user may act in."""
        ...


def wall_clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Ingest:
    """The collaborators and bounds of the ingest handlers. Sizes in bytes, times in seconds."""

    bus: Bus
    authenticate: Callable[[web.Request], Awaitable[Principal]]
    """Raises Unauthenticated."""
    directory: Directory
    rates: Rates = field(default_factory=lambda: Rates(Settings()))
    """Charged once it is known who sends, before anything is looked up or read for it."""
    bodies: Bodies = field(default_factory=Bodies)
    shards: int = 64
    clock: Callable[[], int] = wall_clock_ms
    body_bytes: int = 80 * KIBIBYTE
    """64 KiB of event data, and room for the rest of the object."""
    bulk_body_bytes: int = 4096 * KIBIBYTE
    body_silence: float = 5.0
    """How long a client may send nothing while its body is incomplete. One that counts its
    Content-Length in characters waits for an answer with the last bytes never sent."""
    body_timeout: float = 30.0
    """How long a whole body may take, however steadily it drips."""
