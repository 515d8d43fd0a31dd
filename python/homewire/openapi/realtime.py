"""The operations of the router for the OpenAPI document: sending events and commands, and the two WebSockets.

Their handlers are in `events/` and `realtime/handshake.py`, without `rest/dispatch.py`, which would cost
time. A test compares these rows with the routes of a running node and with their answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from homewire.auth.actions import Action
from homewire.auth.subscription import ListenQuery
from homewire.projects.models import OfflineCommands
from homewire.rest.models import Answer, Id, Timestamp
from homewire.rest.operation import SWITCHING_PROTOCOLS, Access, BodyKind, Endpoint

_ERRORS: Final = frozenset({401, 403, 404, 429})
_STAMPED: Final = "The server sets time, home and origin of the event, and ignores members of these names."

_SUBPROTOCOL: Final = (
    "There is no subprotocol. A handshake that offers some is answered 101 without one, as RFC 6455 has it;"
    " browsers then fail the connection, so `new WebSocket(url)` takes no second argument."
)


class Event(msgspec.Struct, kw_only=True, rename="camel"):
    """An event that a device or server sends."""

    event_type: Annotated[str, msgspec.Meta(min_length=1)]
    event_data: dict[str, Any] | None = None
    entity_id: str | None = None


class Stamps(Answer, kw_only=True):
    """The members of an event that the server sets."""

    timestamp: Timestamp
    home_id: Id
    origin_device_id: Id | None = None
    origin_device_class: str | None = None
    origin_device_ip: str | None = None
    origin_project_key_id: str | None = None
    origin_project_key_name: str | None = None


class ReceivedEvent(Stamps, kw_only=True):
    """An event as WebSockets and webhooks receive it."""

    event_type: str
    event_data: dict[str, Any] | None = None
    entity_id: str | None = None


class DeviceConnectedEvent(Stamps, kw_only=True):
    """A device opened its first command WebSocket. It has no event data."""

    event_type: Literal["_deviceConnected_"]


class DeviceDisconnectedEvent(Stamps, kw_only=True):
    """The last command WebSocket of a device was closed. It has no event data."""

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
"""What subscribers receive: events of applications, and those of the platform."""


class PlacedEvent(Event, kw_only=True, rename="camel"):
    """An event of a bulk body, with the device or home that it is about."""

    home_id: int | None = None
    device_id: int | None = None


class Command(msgspec.Struct, kw_only=True, rename="camel"):
    """A command to a device. The device receives it unchanged."""

    action: Annotated[str, msgspec.Meta(min_length=1)]
    parameters: dict[str, Any] | None = None


class CommandQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """How a command to a device that is not connected is handled."""

    queue: Annotated[int, msgspec.Meta(ge=1)] | msgspec.UnsetType = msgspec.UNSET
    """How many seconds the command is queued."""
    offline: OfflineCommands | msgspec.UnsetType = msgspec.UNSET
    """Without `queue`: `refuse` answers 403 `DEVICE_OFFLINE`, `drop` 204. The default is the project's."""


class BatchResult(Answer):
    """The result of one item: 204 and the event's id, or status, reason and data of an error."""

    status: int
    id: str | None = None
    reason: str | None = None
    data: dict[str, Any] | None = None


class BatchResults(Answer):
    """One result for each item, in their order."""

    results: list[BatchResult]


ENDPOINTS: Final = (
    Endpoint(
        name="sendHomeEvent",
        method="PUT",
        path="/homes/{homeId}/event",
        tag="Events and commands",
        summary="Send an event to a home",
        description=f"204 means that the event is stored and will be delivered to subscribers. {_STAMPED}",
        source="spec 001, Send Event to Home",
        access=Access.of(Action.SEND_HOME_EVENT),
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
        summary="Send an event of a device, with the device's key",
        description=f"204 means that the event is stored and will be delivered to subscribers. {_STAMPED}",
        source="spec 001, Send Device Event",
        access=Access.of(Action.SEND_DEVICE_EVENT),
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
        description="Each item has a result, even beside invalid ones. At most 4 MiB and 1,000 items.",
        source="homewire's own",
        access=Access.of(Action.SEND_HOME_EVENT),
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
            "204 means that the command was accepted, not that it was delivered. A command to a device that"
            " is not connected is dropped, unless `queue` says how many seconds it is queued: then it is"
            " delivered, in order, when the device connects. 429 if the device's queue is full. With"
            " `offline=refuse`, or with that setting of the project, such a command without `queue` is 403"
            " `DEVICE_OFFLINE`.\n\n"
            "In a project with access by permission a user needs the permission `write:device:<deviceId>`;"
            " membership does not suffice."
        ),
        source="spec 001, Send Command",
        access=Access.of(Action.SEND_COMMAND),
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
            "Each message is one ReceivedEvent object. Without a filter the connection receives the events of"
            " all homes that the user is a member of, now or later. This operation is not available in"
            " projects with BYOU accounts.\n\n"
            "The platform's own events are `_deviceConnected_`, `_deviceDisconnected_`, `_keyValueSaved_` and"
            " `_keyValueDeleted_`: see DeviceConnectedEvent, DeviceDisconnectedEvent, KeyValueSavedEvent and"
            " KeyValueDeletedEvent. Clients cannot send types that begin and end with `_`.\n\n"
            "In a project with access by permission a filter is required, each of its values needs the"
            " permission `read:home-events:<homeId>`, `read:device:<deviceId>` or"
            " `read:entity-events:<entityId>`, and membership is not considered.\n\n"
            "A home, device or entity that is unknown or that the user cannot see is 404. An entity that is"
            " not registered may be named: events of every home may name it. A parameter that differs from"
            " one of these only by case or a missing `Id` is 403.\n\n" + _SUBPROTOCOL
        ),
        source="spec 000, Listen to events",
        access=Access.of(Action.RECEIVE_HOME),
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
        summary="Receive the commands for a device, with the device's key",
        description=f"Each message is one Command object.\n\n{_SUBPROTOCOL}",
        source="spec 001, Receive Commands",
        access=Access.of(Action.RECEIVE_COMMANDS),
        success=SWITCHING_PROTOCOLS,
        message=Command,
        errors=_ERRORS,
    ),
)
