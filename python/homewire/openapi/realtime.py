"""What the router serves and the document describes: events and commands in, and the two WebSockets.

The handlers are in `ingest/` and `realtime/handshake.py`, on their own short way past `api.dispatch`; a
test holds these rows against the routes of a running node, and against what the routes answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from homewire.projects.models import KeyScope, OfflineCommands
from homewire.rest.models import Answer, Id, Timestamp
from homewire.rest.operation import SWITCHING_PROTOCOLS, Access, BodyKind, Endpoint

_ERRORS: Final = frozenset({401, 403, 404, 429})
_STAMPED: Final = (
    "The server stamps time, home and origin; what a client sends under these names is set aside."
)

_SUBPROTOCOL: Final = (
    "There is no subprotocol. A handshake that offers some is answered 101 without one, as RFC 6455 has it;"
    " browsers then fail the connection, so `new WebSocket(url)` takes no second argument."
)


class Event(msgspec.Struct, kw_only=True, rename="camel"):
    """What a device, server or entity reports, as it is sent."""

    event_type: Annotated[str, msgspec.Meta(min_length=1)]
    event_data: dict[str, Any] | None = None
    entity_id: str | None = None


class Stamps(Answer, kw_only=True):
    """What the server says of each event itself."""

    timestamp: Timestamp
    home_id: Id
    origin_device_id: Id | None = None
    origin_device_class: str | None = None
    origin_device_ip: str | None = None
    origin_project_key_id: str | None = None
    origin_project_key_name: str | None = None


class ReceivedEvent(Stamps, kw_only=True):
    """An event as WebSockets and webhooks get it. What the server stamps, it says itself."""

    event_type: str
    event_data: dict[str, Any] | None = None
    entity_id: str | None = None


class DeviceConnectedEvent(Stamps, kw_only=True):
    """A device opened its first command WebSocket. It has no event data."""

    event_type: Literal["_deviceConnected_"]


class DeviceDisconnectedEvent(Stamps, kw_only=True):
    """The last command WebSocket of a device ended. It has no event data."""

    event_type: Literal["_deviceDisconnected_"]


class SavedValue(Answer):
    """The data of a `_keyValueSaved_` event. A value that is too long for an event is missing."""

    key: str
    value: Any = None


class DeletedValue(Answer):
    """The data of a `_keyValueDeleted_` event."""

    key: str


class KeyValueSavedEvent(Stamps, kw_only=True):
    """A value of a home or device was put."""

    event_type: Literal["_keyValueSaved_"]
    event_data: SavedValue


class KeyValueDeletedEvent(Stamps, kw_only=True):
    """A value of a home or device was deleted."""

    event_type: Literal["_keyValueDeleted_"]
    event_data: DeletedValue


RECEIVED: Final = (
    ReceivedEvent,
    DeviceConnectedEvent,
    DeviceDisconnectedEvent,
    KeyValueSavedEvent,
    KeyValueDeletedEvent,
)
"""What listeners get: events of applications, and those of the platform."""


class PlacedEvent(Event, kw_only=True, rename="camel"):
    """An event of a batch, and what it is about: `deviceId` or `homeId`."""

    home_id: int | None = None
    device_id: int | None = None


class Command(msgspec.Struct, kw_only=True, rename="camel"):
    """What a device is told to do. It arrives as it was put, nothing added."""

    action: Annotated[str, msgspec.Meta(min_length=1)]
    parameters: dict[str, Any] | None = None


class CommandQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """What becomes of a command to a device that is not connected."""

    queue: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType = msgspec.UNSET
    """For how many seconds it is kept."""
    offline: OfflineCommands | msgspec.UnsetType = msgspec.UNSET
    """Without `queue`: `refuse` answers 403 `DEVICE_OFFLINE`, `drop` 204. The default is the project's."""


class BatchResult(Answer):
    """What became of one item: 204 and the event's id, or an error's status, reason and data."""

    status: int
    id: str | None = None
    reason: str | None = None
    data: dict[str, Any] | None = None


class BatchResults(Answer):
    """One result for each item, in their order."""

    results: list[BatchResult]


class ListenQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """Which events are to be heard. Only one name counts: entityId, else deviceId, else homeId."""

    home_id: list[int] | msgspec.UnsetType = msgspec.UNSET
    device_id: list[int] | msgspec.UnsetType = msgspec.UNSET
    entity_id: list[str] | msgspec.UnsetType = msgspec.UNSET


ENDPOINTS: Final = (
    Endpoint(
        name="sendHomeEvent",
        method="PUT",
        path="/homes/{homeId}/event",
        tag="Events and commands",
        summary="Send an event to a home",
        description=f"204 says that it is stored and on its way to the listeners. {_STAMPED}",
        source="spec 001, Send Event to Home",
        access=Access(permission=KeyScope.SEND_EVENT),
        body=Event,
        success=204,
        errors=_ERRORS,
        idempotency_key=True,
    ),
    Endpoint(
        name="sendDeviceEvent",
        method="PUT",
        path="/devices/{deviceId}/event",
        tag="Events and commands",
        summary="Send an event of a device; only the device itself can",
        description=f"204 says that it is stored and on its way to the listeners. {_STAMPED}",
        source="spec 001, Send Device Event",
        access=Access(device=True),
        body=Event,
        success=204,
        errors=_ERRORS,
        idempotency_key=True,
    ),
    Endpoint(
        name="sendEvents",
        method="POST",
        path="/events",
        tag="Events and commands",
        summary="Send many events at once",
        description="A bad item stops no other: each has a result of its own. At most 4 MiB and 1,000 items.",
        source="homewire's own",
        access=Access(permission=KeyScope.SEND_EVENT),
        body=list[PlacedEvent],
        body_kind=BodyKind.BATCH,
        answer=BatchResults,
        errors=frozenset({401, 403, 429}),
        idempotency_key=True,
    ),
    Endpoint(
        name="sendCommand",
        method="PUT",
        path="/devices/{deviceId}/command",
        tag="Events and commands",
        summary="Send a command to a device",
        description=(
            "204 says that it was accepted, not that it was delivered. To a device that is not connected it"
            " is dropped, unless `queue` says for how many seconds it is kept: then it is delivered in its"
            " order when the device comes. 429 when as many are kept for the device as may be. With"
            " `offline=refuse`, or in a project that is set so, such a command without `queue` is 403"
            " `DEVICE_OFFLINE`.\n\n"
            "In a project with access by permission a user needs the permission `write:device:<deviceId>`,"
            " not membership."
        ),
        source="spec 001, Send Command",
        access=Access(user=True, permission=KeyScope.SEND_COMMAND),
        query=CommandQuery,
        body=Command,
        success=204,
        errors=_ERRORS,
        idempotency_key=True,
    ),
    Endpoint(
        name="listenToEvents",
        method="GET",
        path="/userSession/websocket",
        tag="WebSockets",
        summary="Receive events as they happen",
        description=(
            "Each message is one ReceivedEvent object. Without a filter: all homes that the user is a member"
            " of, now and later. Not in projects with BYOU accounts, which bring their own users.\n\n"
            "The platform's own events are `_deviceConnected_`, `_deviceDisconnected_`, `_keyValueSaved_` and"
            " `_keyValueDeleted_`: see DeviceConnectedEvent, DeviceDisconnectedEvent, KeyValueSavedEvent and"
            " KeyValueDeletedEvent. Clients cannot send types that begin and end with `_`.\n\n"
            "In a project with access by permission a filter is required, each of its values needs the"
            " permission `read:home-events:<homeId>`, `read:device:<deviceId>` or"
            " `read:entity-events:<entityId>`, and membership plays no part.\n\n"
            "A home, device or entity that is unknown or that the user cannot see is 404. An entity that is"
            " not registered may be named: events of every home may name it. A parameter that differs from"
            " one of these only by case or a missing `Id` is 403.\n\n" + _SUBPROTOCOL
        ),
        source="spec 000, Listen to events",
        access=Access(user=True),
        query=ListenQuery,
        success=SWITCHING_PROTOCOLS,
        message=ReceivedEvent,
        errors=_ERRORS,
    ),
    Endpoint(
        name="receiveCommands",
        method="GET",
        path="/devices/{deviceId}/command",
        tag="WebSockets",
        summary="Receive the commands for a device; only the device itself can",
        description=f"Each message is one Command object.\n\n{_SUBPROTOCOL}",
        source="spec 001, Receive Commands",
        access=Access(device=True),
        success=SWITCHING_PROTOCOLS,
        message=Command,
        errors=_ERRORS,
    ),
)
