"""Records of devices."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class DevicePresence(msgspec.Struct, frozen=True):
    """Whether a device holds a command WebSocket anywhere, and when that began and ended last."""

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
    """0: nobody claimed it."""
    claimable_until_ms: int = 0
    """In the past or 0: it cannot be claimed."""


@dataclass(frozen=True, slots=True)
class DeviceLocation:
    """Where a device is: `home_id` None while nobody claimed it."""

    home_id: int | None
    device_class: str
