"""Commands in: what users and servers send to one device (spec 001, *Send Command*)."""

from __future__ import annotations

from functools import partial
from typing import Final

from aiohttp import web

from homewire._core import InvalidField, command_envelope, parse_command, queued_command_envelope, shard_of
from homewire.auth.access import (
    authorize_with_fresh_location,
    has_permission,
    permission_needed,
    require_active,
    require_project_key,
)
from homewire.auth.models import Principal, PrincipalKind
from homewire.devices.models import DeviceLocation
from homewire.errors import InvalidInput, NotFound, PermissionDenied, UnknownRecord
from homewire.events.context import Ingest, append_event, claim, idempotency_key, key_reused
from homewire.events.queued_commands import QueuedCommand, QueuedCommands
from homewire.permissions.models import PermissionKind
from homewire.projects.models import KeyScope, OfflineCommands
from homewire.server.answers import whole_answer
from homewire.server.requests import path_id

LONGEST_NUMBER: Final = 10


async def put_device_command(ingest: Ingest, request: web.Request) -> web.StreamResponse:
    """`PUT /devices/{deviceId}/command`: a user of the device's home, or a project key that may."""
    principal = await ingest.authenticate(request)
    if principal.kind is PrincipalKind.DEVICE:
        raise PermissionDenied(needs="a user's or a project's key")
    if principal.kind is PrincipalKind.PROJECT_KEY:
        require_project_key(principal, KeyScope.SEND_COMMAND)
    ingest.rates.take(principal)
    device_id = path_id(request, "deviceId")
    await _require_visible(ingest, principal, device_id)
    keep_s = _queue_seconds(ingest, request)
    refuses = keep_s is None and await _refuses_offline(ingest, request, principal)
    key = idempotency_key(request)
    body = await ingest.reader.read(request, ingest.body_bytes)
    ingest.rates.take_bytes(principal, len(body))
    try:
        command = parse_command(body)
    except InvalidField as error:
        raise InvalidInput(error.field, error.problem) from error
    if keep_s is not None and ingest.queued_commands is not None:
        now = ingest.clock.now_ms()
        expires = now + keep_s * 1000
        head, tail = queued_command_envelope(command, principal.project_id, device_id, now, expires)
        kept = QueuedCommand(device_id, head, tail, expires)
        await _keep(ingest, ingest.queued_commands, request, principal, kept, body)
        return whole_answer(request, 204)
    if refuses:
        await _require_connected(ingest, principal, device_id)
    envelope = command_envelope(command, principal.project_id, device_id, ingest.clock.now_ms())
    once = claim(ingest.rates, key, principal, f"PUT /devices/{device_id}/command", body) if key else None
    await append_event(ingest.bus, shard_of(device_id, ingest.shards), envelope, once)
    return whole_answer(request, 204)


async def _refuses_offline(ingest: Ingest, request: web.Request, principal: Principal) -> bool:
    """Whether the command is refused where the device is not connected: as the request says, else as the
    project is set. Raises InvalidInput."""
    given = request.query.getall("offline", None)
    if given is None:
        project = await ingest.directory.project(principal.project_id)
        return project is not None and project.offline_commands is OfflineCommands.REFUSE
    if len(given) != 1 or given[0] not in set(OfflineCommands):
        raise InvalidInput("offline", f"must be {' or '.join(OfflineCommands)}")
    return given[0] == OfflineCommands.REFUSE


async def _require_connected(ingest: Ingest, principal: Principal, device_id: int) -> None:
    """Raises PermissionDenied (DEVICE_OFFLINE) unless a node holds the device. The store is asked before."""
    if ingest.is_connected is not None and not await ingest.is_connected(principal.project_id, device_id):
        raise PermissionDenied("DEVICE_OFFLINE", field="deviceId", problem="the device is not connected")


def _queue_seconds(ingest: Ingest, request: web.Request) -> int | None:
    """How long the command is to be kept; None: it is for a device that is there. Raises InvalidInput."""
    given = request.query.getall("queue", None)
    if given is None:
        return None
    longest = ingest.max_queued_s
    text = given[0]
    is_number = len(given) == 1 and text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER
    if not is_number or not 1 <= int(text) <= longest:
        raise InvalidInput("queue", f"must be a whole number of seconds from 1 to {longest}")
    return int(text)


async def _keep(
    ingest: Ingest,
    queued_commands: QueuedCommands,
    request: web.Request,
    principal: Principal,
    command: QueuedCommand,
    body: bytes,
) -> None:
    """Keep a command, at most once if the request claims that. It is on its way all the same."""
    once = None
    if key := idempotency_key(request):
        operation = f"PUT /devices/{command.device_id}/command?queue={request.query['queue']}"
        claimed = claim(ingest.rates, key, principal, operation, body)
        once = claimed.scope_key, claimed.fingerprint, ingest.bus.idempotency_ms
    try:
        is_kept = await queued_commands.keep(principal.project_id, command, ingest.queue_bounds, once)
    except UnknownRecord:
        # Deleted since it was looked up.
        raise NotFound from None
    if not is_kept:
        raise key_reused()


async def _require_visible(ingest: Ingest, principal: Principal, device_id: int) -> None:
    """Raises NotFound alike for a device that is unknown and for one in none of the user's homes.

    Where rights say who may, a user needs the right to write the device, and no membership; without it
    members get PermissionDenied. Who sees it gets InvalidInput if its home is deactivated.
    """
    require_place = partial(_require_place, ingest, principal, device_id)
    await authorize_with_fresh_location(ingest.directory, principal.project_id, device_id, require_place)


async def _require_place(
    ingest: Ingest, principal: Principal, device_id: int, location: DeviceLocation | None
) -> None:
    if location is None:
        raise NotFound
    home_id = location.home_id
    if principal.kind is not PrincipalKind.PROJECT_KEY:
        await _require_access(ingest, principal, device_id, home_id)
    if home_id is not None:
        await require_active(ingest.directory, principal.project_id, home_id)


async def _require_access(ingest: Ingest, principal: Principal, device_id: int, home_id: int | None) -> None:
    if home_id is None:
        raise NotFound
    permitted = await has_permission(ingest.directory, principal, PermissionKind.WRITE_DEVICE, device_id)
    if permitted:
        return
    if not await ingest.directory.member_of(principal.project_id, principal.id, (home_id,)):
        raise NotFound
    if permitted is False:
        raise permission_needed(PermissionKind.WRITE_DEVICE, device_id)
