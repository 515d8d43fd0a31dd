"""Operations that send events and commands: one event, many events, one command.

`POST /events` is an operation of homewire; the specification has single events only. Its body is NDJSON or a
JSON array. The answer has one result for each item, in the order of the items. An invalid item does not stop
the others.

With an Idempotency-Key the items are recorded one by one, each in the shard of its home. A retry after a
partial failure appends the missing items, and answers the first stream ids for the others. Before that, one
record for all shards binds the key to the body: a different body could otherwise pass in a shard where the
first one had no items.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Final, TypeAlias, cast

import orjson
from aiohttp import web

from homewire._core import (
    EventBatch,
    InvalidField,
    PlacedEvents,
    accept_event,
    command_envelope,
    parse_command,
    queued_command_envelope,
    shard_of,
)
from homewire.auth.access import bound_elsewhere, items_bound_elsewhere, split_by_active
from homewire.auth.actions import Action, require_key
from homewire.auth.models import Principal
from homewire.bus.append import Bus
from homewire.bus.shards import BusError
from homewire.errors import (
    BusUnavailable,
    InvalidInput,
    NotConfirmed,
    NotFound,
    PermissionDenied,
    RequestError,
    UnknownRecord,
)
from homewire.events.context import (
    EventContext,
    IdempotentRequest,
    append_event,
    idempotency_key,
    idempotent_request,
    key_reused,
)
from homewire.events.queued_commands import QueuedCommand, QueuedCommands
from homewire.projects.models import OfflineCommands
from homewire.server.answers import whole_answer
from homewire.server.clients import client_address
from homewire.server.requests import path_id

MAX_DIGITS: Final = 10
"""Digits of the query parameter `queue`."""

Outcome: TypeAlias = bytes | RequestError
"""The stream id of an item that was stored, or the reason why it was not."""


def routes(context: EventContext) -> list[web.RouteDef]:
    """The routes to mount at the URL root. Handlers raise `errors.RequestError`; a middleware renders it."""
    return [
        web.put("/devices/{deviceId}/event", partial(put_device_event, context)),
        web.put("/homes/{homeId}/event", partial(put_home_event, context)),
        web.put("/devices/{deviceId}/command", partial(put_device_command, context)),
        web.post("/events", partial(post_events, context)),
    ]


# -- one event: a batch of one --


async def put_device_event(context: EventContext, request: web.Request) -> web.StreamResponse:
    """`PUT /devices/{deviceId}/event`, spec 001 *Send Device Event*: for the key of this device."""
    principal = await context.authenticate(request)
    require_key(principal, Action.SEND_DEVICE_EVENT)
    context.rates.take(principal)
    device = await context.authorisation.event_source(principal, path_id(request, "deviceId"))
    key = idempotency_key(request)
    body = await _event_body(context, request, principal)
    try:
        events = accept_event(
            body,
            project=principal.project_id,
            home=device.home_id,
            time_ms=context.clock.now_ms(),
            shards=context.shards,
            device=device.device_id,
            device_class=device.device_class,
            device_ip=client_address(request),
            from_client=not context.platform_types,
        )
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error
    once = idempotent_request(context.rates, key, principal, f"PUT /devices/{device.device_id}/event", body)
    await _store_one(context, principal, events, once)
    return whole_answer(request, 204)


async def put_home_event(context: EventContext, request: web.Request) -> web.StreamResponse:
    """`PUT /homes/{homeId}/event`, spec 001 *Send Event to Home*: for a project key that may send events."""
    principal = await context.authenticate(request)
    require_key(principal, Action.SEND_HOME_EVENT)
    context.rates.take(principal)
    home_id = path_id(request, "homeId")
    await context.authorisation.require(principal, Action.SEND_HOME_EVENT, home_id)
    key = idempotency_key(request)
    body = await _event_body(context, request, principal)
    try:
        events = accept_event(
            body,
            project=principal.project_id,
            home=home_id,
            time_ms=context.clock.now_ms(),
            shards=context.shards,
            project_key_id=principal.id,
            project_key_name=principal.name,
            from_client=not context.platform_types,
        )
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error
    once = idempotent_request(context.rates, key, principal, f"PUT /homes/{home_id}/event", body)
    await _store_one(context, principal, events, once)
    return whole_answer(request, 204)


async def _event_body(context: EventContext, request: web.Request, principal: Principal) -> bytes:
    body = await context.reader.read(request, context.body_bytes)
    context.rates.take_bytes(principal, len(body))
    return body


async def _store_one(
    context: EventContext, principal: Principal, events: PlacedEvents, once: IdempotentRequest | None
) -> None:
    """Store a batch of one. Raises the reason if it was not stored."""
    (outcome,) = await _store(context, principal, events, once)
    if isinstance(outcome, RequestError):
        raise outcome


# -- many events --


async def post_events(context: EventContext, request: web.Request) -> web.StreamResponse:
    """`POST /events`: for a project key that may send events. 200 with `{"results": […]}`.

    503 only if every item failed because Redis is unavailable. All items count against the limits, also
    refused ones. Beyond a limit the whole request is answered 429.
    """
    principal = await context.authenticate(request)
    require_key(principal, Action.SEND_HOME_EVENT)
    key = idempotency_key(request)
    body = await context.reader.read(request, context.bulk_body_bytes)
    try:
        batch = EventBatch(body, not context.platform_types)
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error
    context.rates.take(principal, len(batch))
    context.rates.take_bytes(principal, len(body))
    placed = await _place(context, principal, batch)
    once = idempotent_request(context.rates, key, principal, "POST /events", body, len(batch))
    if once is not None:
        await _record_key(context, once)
    outcomes = await _store(context, principal, placed, once)
    _raise_if_none_stored(len(batch), outcomes)
    results = placed.results(_results(outcomes))
    return whole_answer(request, 200, results)


async def _place(context: EventContext, principal: Principal, batch: EventBatch) -> PlacedEvents:
    """Find each item's shard and envelope: one query for all devices, then one for all homes."""
    project_id, directory = principal.project_id, context.authorisation.directory
    home_ids, device_ids = batch.targets()
    located = await directory.locate(project_id, device_ids) if device_ids else {}
    devices = {
        device_id: (location.home_id or 0, location.device_class) for device_id, location in located.items()
    }
    home_ids.update(home for home, _ in devices.values() if home)
    homes, deactivated = await split_by_active(directory, project_id, home_ids)
    return batch.place(
        project_id,
        context.clock.now_ms(),
        principal.id,
        principal.name,
        homes,
        devices,
        context.shards,
        deactivated,
    )


async def _store(
    context: EventContext, principal: Principal, placed: PlacedEvents, once: IdempotentRequest | None
) -> Sequence[Outcome]:
    """Append all placed items, except those about an entity of another home. Returns the outcome of each, in
    order."""
    refused: set[int] = set()
    if placed.names_entities:
        directory = context.authorisation.directory
        refused = await items_bound_elsewhere(directory, principal.project_id, placed.entities())
    if once is not None:
        return await _append_once(context, once, placed, refused)
    if refused:
        return await _append_some(context.bus, placed, refused)
    return await _append(context.bus, placed)


async def _append(bus: Bus, placed: PlacedEvents) -> Sequence[Outcome]:
    """Append all placed items. Returns the outcome of each, in order."""
    return await bus.append_all(placed)


async def _append_some(bus: Bus, placed: PlacedEvents, refused: set[int]) -> list[Outcome]:
    """Append all placed items except the `refused` ones. Returns the outcome of each, in order."""
    items = placed.placed()
    accepted = [(shard, envelope) for index, shard, envelope in items if index not in refused]
    outcomes = iter(await bus.append_each(accepted))
    return [bound_elsewhere() if index in refused else next(outcomes) for index, _, _ in items]


async def _append_once(
    context: EventContext, once: IdempotentRequest, placed: PlacedEvents, refused: set[int]
) -> list[Outcome]:
    """Append with one atomic step for each shard, concurrently. Returns the outcome of each placed item."""
    by_shard: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    outcomes: dict[int, Outcome] = {}
    for index, shard, envelope in placed.placed():
        if index in refused:
            outcomes[index] = bound_elsewhere()
        else:
            by_shard[shard].append((index, envelope))
    steps = [_append_shard(context.bus, once, shard, labelled) for shard, labelled in by_shard.items()]
    for done in await asyncio.gather(*steps):
        outcomes.update(done)
    return [outcomes[index] for index in sorted(outcomes)]


async def _record_key(context: EventContext, once: IdempotentRequest) -> None:
    """Bind the key to this body. Raises InvalidInput if it was used with another one, BusError."""
    shard = shard_of(int(once.scope_key[:15], 16), context.shards)
    if await context.bus.append_once(shard, f"{once.scope_key}:bulk", once.fingerprint, []) is None:
        raise key_reused()


async def _append_shard(
    bus: Bus, once: IdempotentRequest, shard: int, labelled: list[tuple[int, bytes]]
) -> dict[int, bytes | BusError]:
    labels = [label for label, _ in labelled]
    envelopes = [envelope for _, envelope in labelled]
    try:
        ids = await bus.append_once(shard, once.scope_key, once.fingerprint, envelopes, labels)
    except (BusUnavailable, NotConfirmed) as error:
        return dict.fromkeys(labels, error)
    if ids is None:
        raise key_reused()
    return dict(zip(labels, ids, strict=True))


def _raise_if_none_stored(items: int, outcomes: Sequence[Outcome]) -> None:
    if not outcomes or isinstance(outcomes[0], bytes):
        return
    failures = [outcome for outcome in outcomes if isinstance(outcome, BusError)]
    if len(failures) < items:
        return
    # One append with an unknown outcome makes the outcome of the request unknown.
    raise next((failure for failure in failures if isinstance(failure, NotConfirmed)), failures[0])


def _results(outcomes: Sequence[Outcome]) -> list[bytes | str]:
    """The result of each outcome: a stream id as it is, a failure as JSON."""
    # Usually all outcomes are ids. Then nothing is done for each of them.
    if set(map(type, outcomes)) == {bytes}:
        return cast(list[bytes | str], outcomes)
    return [outcome if isinstance(outcome, bytes) else _failure(outcome) for outcome in outcomes]


def _failure(error: RequestError) -> str:
    return orjson.dumps({"status": error.status, "reason": error.reason, "data": error.data}).decode()


# -- one command --


async def put_device_command(context: EventContext, request: web.Request) -> web.StreamResponse:
    """`PUT /devices/{deviceId}/command`, spec 001 *Send Command*: for users and project keys with access."""
    principal = await context.authenticate(request)
    require_key(principal, Action.SEND_COMMAND)
    context.rates.take(principal)
    device_id = path_id(request, "deviceId")
    await context.authorisation.require(principal, Action.SEND_COMMAND, device_id)
    queue_s = _queue_seconds(context, request)
    refuses = queue_s is None and await _refuses_offline(context, request, principal)
    key = idempotency_key(request)
    body = await context.reader.read(request, context.body_bytes)
    context.rates.take_bytes(principal, len(body))
    try:
        command = parse_command(body)
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error
    if queue_s is not None and context.queued_commands is not None:
        now = context.clock.now_ms()
        expires = now + queue_s * 1000
        head, tail = queued_command_envelope(command, principal.project_id, device_id, now, expires)
        queued = QueuedCommand(device_id, head, tail, expires)
        await _queue(context, context.queued_commands, request, principal, queued, body)
        return whole_answer(request, 204)
    if refuses:
        await _require_connected(context, principal, device_id)
    envelope = command_envelope(command, principal.project_id, device_id, context.clock.now_ms())
    once = idempotent_request(context.rates, key, principal, f"PUT /devices/{device_id}/command", body)
    await append_event(context.bus, shard_of(device_id, context.shards), envelope, once)
    return whole_answer(request, 204)


async def _refuses_offline(context: EventContext, request: web.Request, principal: Principal) -> bool:
    """Whether the command is refused if the device is not connected.

    The query parameter `offline` decides; without it the setting of the project. Raises InvalidInput.
    """
    given = request.query.getall("offline", None)
    if given is None:
        project = await context.authorisation.directory.project(principal.project_id)
        return project is not None and project.offline_commands is OfflineCommands.REFUSE
    if len(given) != 1 or given[0] not in set(OfflineCommands):
        raise InvalidInput("offline", f"must be {' or '.join(OfflineCommands)}")
    return given[0] == OfflineCommands.REFUSE


async def _require_connected(context: EventContext, principal: Principal, device_id: int) -> None:
    """Raises PermissionDenied (DEVICE_OFFLINE) unless the device is connected to a node."""
    if context.is_connected is not None and not await context.is_connected(principal.project_id, device_id):
        raise PermissionDenied("DEVICE_OFFLINE", field="deviceId", problem="the device is not connected")


def _queue_seconds(context: EventContext, request: web.Request) -> int | None:
    """How long the command may wait in the queue of its device; None: not at all. Raises InvalidInput."""
    given = request.query.getall("queue", None)
    if given is None:
        return None
    longest = context.max_queued_s
    text = given[0]
    is_number = len(given) == 1 and text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not is_number or not 1 <= int(text) <= longest:
        raise InvalidInput("queue", f"must be a whole number of seconds from 1 to {longest}")
    return int(text)


async def _queue(
    context: EventContext,
    queued_commands: QueuedCommands,
    request: web.Request,
    principal: Principal,
    command: QueuedCommand,
    body: bytes,
) -> None:
    """Queue a command, at most once with an Idempotency-Key. The same step sends it through the shard."""
    operation = f"PUT /devices/{command.device_id}/command?queue={request.query['queue']}"
    once = idempotent_request(context.rates, idempotency_key(request), principal, operation, body)
    stored = (once.scope_key, once.fingerprint, context.bus.idempotency_ms) if once else None
    try:
        is_queued = await queued_commands.add(principal.project_id, command, context.queue_bounds, stored)
    except UnknownRecord:
        # The device was deleted in the meantime.
        raise NotFound from None
    if not is_queued:
        raise key_reused()
