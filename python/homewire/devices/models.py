"""Records of devices."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class DevicePresence(msgspec.Struct, frozen=True):
    """Whether a device has a command WebSocket on any node, and when the last ones began and ended."""

    connected: bool = False
    last_connect_ms: int | None = None
    last_disconnect_ms: int | None = None


class Device(msgspec.Struct, frozen=True):
    """A device of a project, in a home or in none (spec 001, *Devices*)."""

    id: int
    project_id: int
    device_class: str
    name: str
    tag: str
    created_ms: int
    home_id: int | None = None
    claim_code: str = ""
    """Empty for a device that was provisioned on demand."""
    claimed_ms: int = 0
    """0: not claimed."""
    claimable_until_ms: int = 0
    """A time in the past, or 0: not claimable."""


@dataclass(frozen=True, slots=True)
class DeviceLocation:
    """Home and class of a device; `home_id` is None while it is in no home."""

    home_id: int | None
    device_class: str
