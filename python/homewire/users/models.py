"""Records of users."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """An end-user of a project, registered unless `invited` (spec 001, *Users*)."""

    id: int
    project_id: int
    name: str
    created_ms: int
    email: str | None = None
    phone: str | None = None
    verified: bool = False
    external_key: str | None = None
    """The user's id in the account system of a BYOU project."""
    invited: bool = False
    """Added to a home and not registered yet: visible to the members of that home only."""
    ui_time_zone: str = "UTC"
    """What times are shown to the user in, of the IANA database."""
    last_login_ms: int = 0
    """When a session was opened last, in whatever way; 0: never."""
    last_failed_login_ms: int = 0
    """When a login as this user last failed, in ms since 1970; 0: never."""
    pending: bool = False
    """Invited, and registered since; no registration is verified."""

    @property
    def registering(self) -> bool:
        """Whether the address was registered and is to be verified."""
        return not self.verified and (not self.invited or self.pending)
