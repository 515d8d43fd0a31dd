"""Records of auth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from homewire.projects.models import KeyScope


class PrincipalKind(StrEnum):
    """The kind of identity that a key belongs to."""

    USER = "user"
    DEVICE = "device"
    PROJECT_KEY = "project key"


@dataclass(frozen=True, slots=True)
class Principal:
    """The identity of a valid key. `key_tag` is the first 8 bytes of the key's SHA-256."""

    kind: PrincipalKind
    project_id: int
    id: int
    """userId, deviceId or projectKeyId, by `kind`."""
    key_tag: int
    name: str = ""
    """appId of a user's session, deviceClass of a device, name of a project key."""
    scopes: frozenset[KeyScope] = frozenset()
    expires_ms: int = 0
    """0: does not expire. A use of the session moves its expiry, so a cached value may be too early."""
    session_id: str = ""
    """Of the session that the key is; empty for a device's own key and for a project key. A node session's
    kind is DEVICE, and it may do what the key of the device may."""
    ends_ms: int = 0
    """The absolute end of that session; 0: none."""


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """All that an event of a device needs of the device: one cached record, of a device in an active home."""

    device_id: int
    home_id: int
    device_class: str
