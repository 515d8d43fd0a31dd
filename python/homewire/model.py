"""Typed records, one per noun of the spec (documents 000 and 001, shared data models).

What is read by the thousand is a Struct: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec


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


class Permission(StrEnum):
    """What a project key may do."""

    SEND_EVENT = "send-event"
    SEND_COMMAND = "send-command"
    READ = "read"
    WRITE_KV = "write-kv"
    BYOU = "byou"
    ADMIN = "admin"


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
class Group:
    """Users of a project who have rights together."""

    id: int
    project_id: int
    name: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class HeldRight:
    """A right, and where a user has it from: granted to them (`direct`), and these groups."""

    right: Right
    direct: bool
    group_ids: tuple[int, ...] = ()


class Role(StrEnum):
    """What a member is in a home."""

    OWNER = "owner"
    MEMBER = "member"


class PrincipalKind(StrEnum):
    """Who a key speaks for."""

    USER = "user"
    DEVICE = "device"
    PROJECT_KEY = "project key"


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
class Principal:
    """Who a valid key speaks for. `key_tag` is the first 8 bytes of the key's SHA-256."""

    kind: PrincipalKind
    project_id: int
    id: int
    """userId, deviceId or projectKeyId, by `kind`."""
    key_tag: int
    name: str = ""
    """appId of a user's session, deviceClass of a device, name of a project key."""
    permissions: frozenset[Permission] = frozenset()
    expires_ms: int = 0
    """0: does not expire. A session that is used expires later than it was once said to."""
    session_id: str = ""
    """Of the session that the key is; empty for a device's own key and for a project key. A node session's
    kind is DEVICE, and it may do what the key of the device may."""
    ends_ms: int = 0
    """When that session is over however much it is used; 0: never."""


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """A key of the project itself, with permissions. The secret is shown once."""

    id: int
    project_id: int
    name: str
    permissions: frozenset[Permission]
    created_ms: int


class PostingQueue(StrEnum):
    """Where messages to people wait."""

    MAIL = "mail"
    SMS = "sms"
    KEPT = "kept"
    """Nothing carries them."""


class Posting(NamedTuple):
    """A message to somebody, as the change that causes it writes it down."""

    queue: PostingQueue
    sealed: str
    """A letter (`notify/letter.py`)."""


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
    """Added to a home and not registered yet: no user to anybody but the members of that home."""
    ui_time_zone: str = "UTC"
    """What times are shown to the user in, of the IANA database."""
    last_login_ms: int = 0
    """When a session was opened last, in whatever way; 0: never."""
    last_failed_login_ms: int = 0
    """When somebody last tried in vain to log in as this user; 0: never."""
    pending: bool = False
    """Invited, and registered since; no registration is verified."""

    @property
    def registering(self) -> bool:
        """Whether the address was registered and is to be verified."""
        return not self.verified and (not self.invited or self.pending)


@dataclass(frozen=True, slots=True)
class Session:
    """A user key is a session; the session APIs are views of this record.

    Who signs in with a device's key gets one, too: a *node session*, whose `user_id` is 0.
    """

    id: str
    project_id: int
    user_id: int
    app_id: str
    """The app, or the name of the view that it came through: sessions-controller, rocket.chat."""
    started_ms: int
    expires_ms: int
    """`slides_ms` after the last use that was written down, at `ends_ms` at the latest."""
    last_access_ms: int
    address: str
    user_agent: str
    authentication_type: str
    """Bearer or Cookie."""
    version: int
    """Counted up on every change."""
    closed_ms: int = 0
    """0: not ended. Past `expires_ms` a session is over all the same."""
    host: str = ""
    """Of the login's URL (its Host header)."""
    node: str = ""
    """UUID of the node that made it."""
    roles: tuple[str, ...] = ("user",)
    device_id: int = 0
    """Of a node session; else 0."""
    slides_ms: int = 0
    """Unused for so long, it is over."""
    ends_ms: int = 0
    """When it is over however much it is used; 0: never."""
    key_hash: str = field(default="", repr=False)
    """SHA-256 of the key, 64 hex digits. The key itself is kept nowhere."""
    ancestors: tuple[str, ...] = ()
    """The sessions whose keys led to this one, from the one that a login opened to the one whose key made it.
    Empty: a login opened it. It ends with each of them, and no later than they may."""


class DevicePresence(msgspec.Struct, frozen=True):
    """Whether a device holds a command WebSocket anywhere, and when that began and ended last."""

    connected: bool = False
    last_connect_ms: int | None = None
    last_disconnect_ms: int | None = None


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
class ProvisioningToken:
    """What a device proves with that a member wants it in a home. Only its hash is stored."""

    home_id: int
    device_class: str
    tag: str
    user_id: int
    """Who asked for it: it is worth as much as their membership."""
    expires_ms: int


@dataclass(frozen=True, slots=True)
class DeviceLocation:
    """Where a device is: `home_id` None while nobody claimed it."""

    home_id: int | None
    device_class: str


class ModuleType(StrEnum):
    """How a smart module is told of events."""

    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class SmartModule:
    """Something that is told of a project's events (spec 001, *Smart Modules*). One type: `webhook`.

    URL and key are sealed (`homewire.sealing`), and stand in no repr.
    """

    id: str
    project_id: int
    module_type: ModuleType
    description: str
    events: frozenset[str]
    """Event types, exactly as they are in events; `*`: all."""
    homes: frozenset[int] | None
    """None: every home of the project."""
    created_ms: int
    since_ms: int
    """By Redis' clock: events of before are not for it. Also tells it from an earlier one of its id."""
    suspended: bool
    sealed_url: str = field(repr=False)
    sealed_key: str = field(repr=False)
    broken_until_ms: int = 0
    """The circuit breaker is open until then; 0: it is closed."""
    sealed_old_key: str = field(default="", repr=False)
    """The key before this one, while both sign; empty: there is none."""
    old_key_until_ms: int = 0
    """It signs until then."""
    last_error: str = ""
    """Why its receiver last took nothing; empty: it took all."""
    last_error_ms: int = 0

    def concerns(self, home_id: int) -> bool:
        """Whether it belongs to this home of its project."""
        return self.homes is None or home_id in self.homes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery to a smart module that was given up."""

    id: str
    event_id: str
    reason: str
    tries: int
    envelope: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A value of a home or device (spec 001, *Key-value store*), as it was put: JSON, byte for byte."""

    key: str
    value: bytes
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Entity:
    """Something in a home that events are about and that is no device (shared data models, *Entity*)."""

    id: str
    project_id: int
    home_id: int
    entity_class: str
    parent_id: str | None = None
    """Another entity of the same home."""
    time_zone: str | None = None
    display_name: str | None = None
    description: str | None = None
    attributes: bytes | None = None
    """A JSON object, byte for byte as it was given."""
    created_ms: int = 0
    updated_ms: int = 0
