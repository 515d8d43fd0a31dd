"""The bodies of answers: the public models of the MODE cloud API (data models).

A member that is None (or False, where it is optional) is left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from homewire.server.requests import LARGEST_ID

Id = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_ID)]
"""An id as it may be given in a query or body."""
IdOrZero = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ID)]
"""The same in a `patching.WholeObject`, where 0 counts as absent."""
Timestamp = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class Answer(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all: camel case, and what is not there is left out."""


class Error(Answer):
    """Why something was refused: an upper-case code, and what a person needs to mend it."""

    reason: str
    data: dict[str, Any]


class User(Answer):
    """A registered end-user of a project."""

    id: int
    project_id: int
    creation_time: Timestamp
    name: str
    verified: bool
    phone_number: str | None = None
    email: str | None = None
    external_key: str | None = None
    ui_time_zone: str | None = None


class Home(Answer):
    """A container of devices."""

    id: int
    project_id: int
    creation_time: Timestamp
    name: str
    timezone: str | None = None
    deactivated: bool = False


class HomeMember(Answer):
    """A user's membership of a home. `verified` is false for an invited user and, as other users see it, for
    one who has not accepted."""

    user_id: int
    creation_time: Timestamp
    verified: bool
    role: Literal["owner", "member"]
    name: str | None = None
    phone_number: str | None = None
    email: str | None = None
    accepted: bool | None = None
    """False for a user who was added by a stranger and has not accepted; else it is missing."""


class Group(Answer):
    """Users of a project who have permissions together."""

    id: int
    project_id: int
    creation_time: Timestamp
    name: str


class GroupMember(Answer):
    """A user in a group."""

    user_id: int


class Permission(Answer):
    """A permission of a user or group. For a user also its source: `granted` to the user, or by groups."""

    permission: str
    granted: bool = False
    group_ids: list[int] | None = None


class SmartModule(Answer):
    """The public part of a smart module."""

    id: str
    module_type: str
    creation_time: Timestamp
    description: str
    suspended: bool
    subscribed_events: list[str]
    project_id: int | None = None
    version: str | None = None


class Device(Answer):
    """A device. `apiKey` stands only in the answer that made it."""

    id: int
    project_id: int
    creation_time: Timestamp
    name: str
    tag: str
    device_class: str
    is_connected: bool
    home_id: int | None = None
    api_key: str | None = None
    claim_code: str | None = None
    claim_time: Timestamp | None = None
    claim_expiration_time: Timestamp | None = None
    last_connect_time: Timestamp | None = None
    last_disconnect_time: Timestamp | None = None


class KeyValuePair(Answer):
    """A value of a home or device, exactly as it was put."""

    key: str
    value: msgspec.Raw
    modification_time: Timestamp


class ClientAuthentication(Answer):
    """The key of a new session."""

    token: str
    user_id: int | None = None
    expiration_time: Timestamp | None = None


class AuthenticationInfo(Answer):
    """The principal of the caller's key."""

    type: Literal["user", "device", "project key", "nobody"]
    project_id: int | None = None
    user_id: int | None = None
    app_id: str | None = None
    device_id: int | None = None
    project_key_name: str | None = None
    expiration_time: Timestamp | None = None


class UserSession(Answer):
    """The session of a user's key."""

    user_id: int
    app_id: str
    """Empty for a session of a BYOU project that was opened without an app."""
    project_id: int
    creation_time: Timestamp
    """When it began."""


class LoginToken(Answer):
    """A token for one login of a user: `POST /session/login-with-token` takes it."""

    token: str
    expiration_time: Timestamp


class SMSMessageReceipt(Answer):
    """The recipient of a message."""

    recipient: str


class RegistrationState(Answer):
    """Until when a device can be claimed."""

    claim_expiration_time: Timestamp


class DeviceProvisioningToken(Answer):
    """What a device proves with that a user wants it in a home."""

    token: str
    expiration_time: Timestamp


class EntityDisplay(Answer):
    """How an entity is shown."""

    name: str
    description: str | None = None


class Entity(Answer):
    """Something in a home that events are about and that is no device."""

    entity_id: str
    entity_class: str
    home_id: int
    project_id: int
    created_at: Timestamp
    updated_at: Timestamp
    parent_id: str | None = None
    time_zone: str | None = None
    display_settings: EntityDisplay | None = None
    attributes: msgspec.Raw | None = None
