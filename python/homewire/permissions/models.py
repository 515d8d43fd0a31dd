"""Records of permissions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PermissionKind(StrEnum):
    """What a user may do with one home, device or entity, in a project with access by permission."""

    READ_HOME_EVENTS = "read:home-events"
    READ_DEVICE = "read:device"
    READ_ENTITY_EVENTS = "read:entity-events"
    WRITE_DEVICE = "write:device"
    """Send commands to the device, and change its values."""
    WRITE_HOME = "write:home"
    """Change the values of the home."""

    @property
    def noun(self) -> str:
        """The kind of resource: "home", "device" or "entity"."""
        return _NOUNS[self]


_NOUNS = {
    PermissionKind.READ_HOME_EVENTS: "home",
    PermissionKind.READ_DEVICE: "device",
    PermissionKind.READ_ENTITY_EVENTS: "entity",
    PermissionKind.WRITE_DEVICE: "device",
    PermissionKind.WRITE_HOME: "home",
}


@dataclass(frozen=True, slots=True)
class Permission:
    """What a user may do with one resource. Its text is `<kind>:<subject>`, as in `read:device:17`."""

    kind: PermissionKind
    subject: str
    """The id of the home or device in decimal digits, or the id of the entity."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.subject}"


@dataclass(frozen=True, slots=True)
class HeldPermission:
    """A permission of a user and its sources: a grant (`direct`), and the groups that have it."""

    permission: Permission
    direct: bool
    group_ids: tuple[int, ...] = ()
