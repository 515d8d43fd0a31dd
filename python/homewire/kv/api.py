"""The key-value store of homes (spec 001, *Key-Value Store*), and the same of devices, which is our own."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from homewire.auth.actions import Action
from homewire.errors import InvalidInput, NotFound
from homewire.kv.store import KeyValue as KeyValueRecord
from homewire.kv.store import Owner, ValueLimits
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.store.parts import Part
from homewire.timestamps import timestamp


class ValueQuery(Paging):
    """The query of *Get Key-Value Pairs*."""

    key_prefix: str = ""
    """Only keys that start with these bytes."""


class NewValue(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Create/Update a Key-Value Pair*. A `key` in it must be that of the path."""

    value: msgspec.Raw
    """Any JSON but null, at most 64 KiB and 64 levels."""
    key: str | None = None


def to_response(pair: KeyValueRecord) -> models.KeyValuePair:
    """The KeyValuePair of a response."""
    return models.KeyValuePair(
        key=pair.key, value=msgspec.Raw(pair.value), modification_time=timestamp(pair.modified_ms)
    )


async def list_values(context: RestContext, call: Call[ValueQuery, None]) -> Part[models.KeyValuePair]:
    """List values in the order of their keys."""
    query = call.query
    part = await context.store.key_values.part(_owner(call), query.key_prefix, query.skip, query.limit)
    return part.map(to_response)


async def get_value(context: RestContext, call: Call[NoQuery, None]) -> models.KeyValuePair:
    """Get a value."""
    pair = await context.store.key_values.get(_owner(call), call.text("key"))
    if pair is None:
        raise NotFound
    return to_response(pair)


async def put_value(context: RestContext, call: Call[NoQuery, NewValue]) -> None:
    """Set a value. Subscribers of the home receive an event."""
    key, body, settings = call.text("key"), call.body, context.settings
    if body.key is not None and body.key != key:
        raise InvalidInput("key", "must be the key of the path")
    value = bytes(body.value)
    if value == b"null":
        raise InvalidInput("value", "must not be null")
    _take_rates(context, call, len(value))
    limits = ValueLimits(settings.values_per_owner, settings.value_bytes_per_owner)
    await context.store.key_values.put(_owner(call), key, value, limits, call.principal)


async def delete_value(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Delete a value. Subscribers of the home receive an event."""
    _take_rates(context, call)
    await context.store.key_values.delete(_owner(call), call.text("key"), call.principal)


def _take_rates(context: RestContext, call: Call[Any, Any], size: int = 0) -> None:
    """Count a change as the event that it sends. Raises TooManyRequests."""
    context.rates.take(call.principal)
    context.rates.take_bytes(call.principal, size)


def _owner(call: Call[Any, Any]) -> Owner:
    ids = call.ids
    if "homeId" in ids:
        return Owner(call.project_id, "home", ids["homeId"])
    return Owner(call.project_id, "device", ids["deviceId"])


_LIMITED: Final = frozenset({401, 403, 404, 429})
_PERMISSION_NEEDED: Final = (
    "In a project with access by permission a user needs the permission `write:{}:<id>`, not membership."
)


def _operations(
    noun: str, path: str, reading: Action, writing: Action, device: bool, source: str
) -> tuple[Operation, ...]:
    reads = Access(user=True, device=device, scope=KeyScope.READ)
    writes = Access(user=True, device=device, scope=KeyScope.WRITE_KV)
    tag = "Key-value store"
    return (
        Operation(
            name=f"list{noun}KeyValuePairs",
            method="GET",
            path=path,
            tag=tag,
            summary=f"List the values of a {noun.lower()}, all or those of a key prefix",
            source=f"{source}, Get Key-Value Pairs",
            access=reads,
            action=reading,
            handler=list_values,
            query=ValueQuery,
            answer=list[models.KeyValuePair],
            errors=frozenset({401, 403}),
        ),
        Operation(
            name=f"get{noun}KeyValuePair",
            method="GET",
            path=path + "/{key}",
            tag=tag,
            summary=f"Look up a value of a {noun.lower()}",
            source=f"{source}, Look Up a Key-Value Pair",
            access=reads,
            action=reading,
            handler=get_value,
            answer=models.KeyValuePair,
        ),
        Operation(
            name=f"put{noun}KeyValuePair",
            method="PUT",
            path=path + "/{key}",
            tag=tag,
            summary=f"Set a value of a {noun.lower()}",
            description=_PERMISSION_NEEDED.format(noun.lower()),
            source=f"{source}, Create/Update a Key-Value Pair",
            access=writes,
            action=writing,
            handler=put_value,
            body=NewValue,
            success=204,
            errors=_LIMITED,
        ),
        Operation(
            name=f"delete{noun}KeyValuePair",
            method="DELETE",
            path=path + "/{key}",
            tag=tag,
            summary=f"Delete a value of a {noun.lower()}",
            description=_PERMISSION_NEEDED.format(noun.lower()),
            source=f"{source}, Delete a Key-Value Pair",
            access=writes,
            action=writing,
            handler=delete_value,
            success=204,
            errors=_LIMITED,
        ),
    )


OPERATIONS: Final = (
    *_operations(
        "Home", "/homes/{homeId}/kv", Action.SEE_HOME, Action.WRITE_HOME, device=False, source="spec 001"
    ),
    *_operations(
        "Device",
        "/devices/{deviceId}/kv",
        Action.SEE_DEVICE,
        Action.WRITE_DEVICE,
        device=True,
        source="as of homes, spec 001",
    ),
)
