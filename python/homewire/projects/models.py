"""Records of projects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AccountSystem(StrEnum):
    """How a project's users sign in."""

    EMAIL = "email"
    PHONE = "phone"
    BYOU = "byou"


class AccessControl(StrEnum):
    """Who may hear a home: its members, or whoever holds a permission."""

    MEMBERSHIP = "membership"
    PERMISSION = "permission"


class OfflineCommands(StrEnum):
    """What becomes of a command to a device that is not connected, unless the request says otherwise."""

    DROP = "drop"
    REFUSE = "refuse"


class Invitations(StrEnum):
    """What it means that a user adds a stranger to a home."""

    ACCEPT = "accept"
    """The stranger is told to nobody, and receives nothing unasked, before they accept."""
    IMMEDIATE = "immediate"
    """As if they had accepted."""


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
    """What a mail's link to verify an address looks like, with `{token}`; empty: a page of ours."""
    password_reset_url: str = ""
    """Likewise, to choose a new password."""
    offline_commands: OfflineCommands = OfflineCommands.DROP
    invitations: Invitations = Invitations.ACCEPT

    sms_country_codes: str = ""
    """Country calling codes that SMS are sent to, `49,43`; empty: those of the deployment."""


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """A key of the project itself, with permissions. The secret is shown once."""

    id: int
    project_id: int
    name: str
    permissions: frozenset[KeyScope]
    created_ms: int
