"""Records of projects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AccountSystem(StrEnum):
    """How the users of a project log in."""

    EMAIL = "email"
    PHONE = "phone"
    BYOU = "byou"


class AccessControl(StrEnum):
    """What lets users receive the events of a home: membership, or a permission."""

    MEMBERSHIP = "membership"
    PERMISSION = "permission"


class OfflineCommands(StrEnum):
    """How a command to a device that is not connected is handled, unless the request says so."""

    DROP = "drop"
    REFUSE = "refuse"


class Invitations(StrEnum):
    """Whether a user who is added to a home by a stranger has to accept."""

    ACCEPT = "accept"
    """Until the user accepts, other members do not see the user, and the user receives no events."""
    IMMEDIATE = "immediate"
    """The membership begins at once."""


class KeyScope(StrEnum):
    """What a project key may do."""

    SEND_EVENT = "send-event"
    SEND_COMMAND = "send-command"
    READ = "read"
    WRITE_KV = "write-kv"
    BYOU = "byou"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant: one account system, its homes, devices, apps and keys."""

    id: int
    name: str
    accounts: AccountSystem
    access_control: AccessControl
    on_demand_provisioning: bool
    created_ms: int
    disabled: bool = False
    verification_url: str = ""
    """The link in a mail that verifies an address, with `{token}`; empty: homewire's own page."""
    password_reset_url: str = ""
    """The link in a mail to choose a new password, with `{token}`; empty: homewire's own page."""
    offline_commands: OfflineCommands = OfflineCommands.DROP
    invitations: Invitations = Invitations.ACCEPT

    sms_country_codes: str = ""
    """Country calling codes that SMS are sent to, `49,43`; empty: those of the deployment."""


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """A key of the project itself, with scopes."""

    id: int
    project_id: int
    name: str
    scopes: frozenset[KeyScope]
    created_ms: int
