"""Records of provisioning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProvisioningToken:
    """What a device proves with that a member wants it in a home. Only its hash is stored."""

    home_id: int
    device_class: str
    tag: str
    user_id: int
    """Who asked for it: it is worth as much as their membership."""
    expires_ms: int
