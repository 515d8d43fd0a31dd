"""Records of homes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """The role of a member in a home."""

    OWNER = "owner"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Home:
    """A container of devices, owned by one or more users (spec 001, *Homes*)."""

    id: int
    project_id: int
    name: str
    created_ms: int
    timezone: str | None = None
    """A name of the IANA database."""
    deactivated: bool = False


@dataclass(frozen=True, slots=True)
class HomeMember:
    """A user's membership of a home (spec 001, *Home members*)."""

    user_id: int
    role: Role
    since_ms: int
    invited_as: str | None = None
    """Of a user who has not accepted the invitation: the address or number that the inviter typed, or `-` for
    an id. Other members see nothing else of this user."""
