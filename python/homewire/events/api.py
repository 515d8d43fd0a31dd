"""Operations that send one event, and the routes of events and commands."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from homewire._core import EventInput, InvalidField, event_envelope, parse_event, shard_of
from homewire.auth.access import inactive_home_error, require_active, require_binding, require_project_key
from homewire.auth.models import Principal, PrincipalKind
from homewire.devices.models import DeviceLocation
from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.events.bulk import post_events
from homewire.events.commands import put_device_command
from homewire.events.context import Ingest, append_event, claim, idempotency_key
from homewire.projects.models import KeyScope
from homewire.server.answers import whole_answer
from homewire.server.clients import client_address
from homewire.server.requests import path_id

NOT_IN_HOME = "DEVICE_NOT_IN_HOME"


async def put_device_event(ingest: Ingest, request: web.Request) -> web.StreamResponse:
    """`PUT /devices/{deviceId}/event`, spec 001 *Send Device Event*: only the device itself."""
    principal = await ingest.authenticate(request)
    if principal.kind is not PrincipalKind.DEVICE:
        raise PermissionDenied(needs="the key of the device")
    ingest.rates.take(principal)
    device_id = path_id(request, "deviceId")
    home_id, location = await _own_home(ingest, principal, device_id)
    key = idempotency_key(request)
    body = await ingest.reader.read(request, ingest.body_bytes)
    ingest.rates.take_bytes(principal, len(body))
    event = parse(body, ingest)
    await require_binding(ingest.directory, principal.project_id, event.entity_id, home_id)
    envelope = event_envelope(
        event,
        principal.project_id,
        home_id,
        device_id,
        ingest.clock.now_ms(),
        location.device_class,
        client_address(request),
        0,
        None,
    )
    once = claim(ingest.rates, key, principal, f"PUT /devices/{device_id}/event", body) if key else None
    await append_event(ingest.bus, shard_of(home_id, ingest.shards), envelope, once)
    return whole_answer(request, 204)


async def put_home_event(ingest: Ingest, request: web.Request) -> web.StreamResponse:
    """`PUT /homes/{homeId}/event`, spec 001 *Send Event to Home*: a project key that may send events."""
    principal = await ingest.authenticate(request)
    require_project_key(principal, KeyScope.SEND_EVENT)
    ingest.rates.take(principal)
    home_id = path_id(request, "homeId")
    if home_id not in await ingest.directory.active_homes(principal.project_id, (home_id,)):
        raise await inactive_home_error(ingest.directory, principal.project_id, home_id)
    key = idempotency_key(request)
    body = await ingest.reader.read(request, ingest.body_bytes)
    ingest.rates.take_bytes(principal, len(body))
    event = parse(body, ingest)
    await require_binding(ingest.directory, principal.project_id, event.entity_id, home_id)
    envelope = event_envelope(
        event,
        principal.project_id,
        home_id,
        0,
        ingest.clock.now_ms(),
        None,
        None,
        principal.id,
        principal.name,
    )
    once = claim(ingest.rates, key, principal, f"PUT /homes/{home_id}/event", body) if key else None
    await append_event(ingest.bus, shard_of(home_id, ingest.shards), envelope, once)
    return whole_answer(request, 204)


async def _own_home(ingest: Ingest, principal: Principal, device_id: int) -> tuple[int, DeviceLocation]:
    """Where the device itself is. Another device's id is an unknown id: NotFound."""
    if device_id != principal.id:
        raise NotFound
    location = (await ingest.directory.locate(principal.project_id, (device_id,))).get(device_id)
    if location is None:
        raise NotFound
    if location.home_id is None:
        raise InvalidInput("deviceId", "the device is in no home: nobody could hear the event", NOT_IN_HOME)
    await require_active(ingest.directory, principal.project_id, location.home_id)
    return location.home_id, location


def parse(body: bytes, ingest: Ingest) -> EventInput:
    """The checked event. Raises InvalidInput naming the field."""
    try:
        return parse_event(body, not ingest.platform_types)
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error


def routes(ingest: Ingest) -> list[web.RouteDef]:
    """What to mount at the URL root. Handlers raise `errors.RequestError`; a middleware renders it."""
    return [
        web.put("/devices/{deviceId}/event", partial(put_device_event, ingest)),
        web.put("/homes/{homeId}/event", partial(put_home_event, ingest)),
        web.put("/devices/{deviceId}/command", partial(put_device_command, ingest)),
        web.post("/events", partial(post_events, ingest)),
    ]
