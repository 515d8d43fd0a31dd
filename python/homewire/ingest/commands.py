"""Commands in: what users and servers send to one device (spec 001, *Send Command*)."""

from __future__ import annotations

from aiohttp import web

from homewire._core import InvalidField, command_envelope, parse_command
from homewire.bus import shard_of
from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.http.paths import path_id
from homewire.ingest.context import Ingest
from homewire.ingest.idempotency import append_event, claim, idempotency_key
from homewire.ingest.permissions import require_project_key
from homewire.model import Permission, Principal, PrincipalKind


async def put_device_command(ingest: Ingest, request: web.Request) -> web.Response:
    """`PUT /devices/{deviceId}/command`: a user of the device's home, or a project key that may."""
    principal = await ingest.authenticate(request)
    if principal.kind is PrincipalKind.DEVICE:
        raise PermissionDenied(needs="a user's or a project's key")
    if principal.kind is PrincipalKind.PROJECT_KEY:
        require_project_key(principal, Permission.SEND_COMMAND)
    ingest.rates.take(principal)
    device_id = path_id(request, "deviceId")
    await _require_visible(ingest, principal, device_id)
    key = idempotency_key(request)
    body = await ingest.reader.read(request, ingest.body_bytes)
    try:
        command = parse_command(body)
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error
    envelope = command_envelope(command, principal.project_id, device_id, ingest.clock())
    once = claim(key, principal, f"PUT /devices/{device_id}/command", body) if key else None
    await append_event(ingest.bus, shard_of(device_id, ingest.shards), envelope, once)
    return web.Response(status=204)


async def _require_visible(ingest: Ingest, principal: Principal, device_id: int) -> None:
    """Raises NotFound alike for a device that is unknown and for one in none of the user's homes."""
    location = (await ingest.directory.locate(principal.project_id, (device_id,))).get(device_id)
    if location is None:
        raise NotFound
    if principal.kind is PrincipalKind.PROJECT_KEY:
        return
    home_id = location.home_id
    if home_id is None:
        raise NotFound
    if not await ingest.directory.member_of(principal.project_id, principal.id, (home_id,)):
        raise NotFound
