"""Records of permissions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RightKind(StrEnum):
    """What a user may do with one home, device or entity, in a project with access by permission."""

    READ_HOME_EVENTS = "read:home-events"
    READ_DEVICE = "read:device"
    READ_ENTITY_EVENTS = "read:entity-events"
    WRITE_DEVICE = "write:device"
    """Send it commands, and change its values."""
    WRITE_HOME = "write:home"
    """Change its values."""

    @property
    def noun(self) -> str:
        """What it is about: "home", "device" or "entity"."""
        return _NOUNS[self]


_NOUNS = {
    RightKind.READ_HOME_EVENTS: "home",
    RightKind.READ_DEVICE: "device",
    RightKind.READ_ENTITY_EVENTS: "entity",
    RightKind.WRITE_DEVICE: "device",
    RightKind.WRITE_HOME: "home",
}


@dataclass(frozen=True, slots=True)
class Right:
    """What somebody may do with what. As a text `<kind>:<subject>`, as in `read:device:17`."""

    kind: RightKind
    subject: str
    """The id of the home or device in decimal digits, or that of the entity."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.subject}"


@dataclass(frozen=True, slots=True)
class HeldRight:
    """A right, and where a user has it from: granted to them (`direct`), and these groups."""

    right: Right
    direct: bool
    group_ids: tuple[int, ...] = ()
