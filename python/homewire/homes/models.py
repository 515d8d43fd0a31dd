"""Records of homes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a member is in a home."""

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
    """Of the IANA database."""
    deactivated: bool = False


@dataclass(frozen=True, slots=True)
class HomeMember:
    """A user's membership of a home (spec 001, *Home members*)."""

    user_id: int
    role: Role
    since_ms: int
    typed: str | None = None
    """A stranger added the user, who has not accepted: by this address or number, or (`-`) by the user's id.
    It is all that other members are told of the user."""
