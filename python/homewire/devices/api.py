"""Devices: list, add, change and remove them (spec 001, *Devices*, *Device Registration*).

A project has one of two kinds of devices. Pre-provisioned devices exist before; a user with the claim code
claims one while the device allows it. On-demand devices are created by a token that a member asked for. The
other way is refused. A wrong, expired or used code or token gets the same answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from homewire.auth import tokens
from homewire.auth.actions import Action
from homewire.auth.models import Principal, PrincipalKind
from homewire.devices.models import Device as DeviceRecord
from homewire.devices.models import DevicePresence
from homewire.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated, UnknownRecord
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.decoding import WholeObject, changes
from homewire.rest.operation import Access, BodyKind, Call, NoQuery, Operation, Paging
from homewire.store.parts import Part
from homewire.timestamps import timestamp, whole_seconds

MUTABLE: Final = frozenset({"name", "tag"})
NEVER_SEEN: Final = DevicePresence()
DEFAULT_CLAIMABLE_S: Final = 3_600
MAX_CLAIMABLE_S: Final = 86_400

T = TypeVar("T")


class DeviceQuery(Paging, kw_only=True, rename="camel"):
    """The home whose devices are listed. A project key may name its project instead."""

    home_id: models.Id | None = None
    project_id: models.Id | None = None


class DevicePatch(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of *Update Device Info*: a Device, of which only name and tag can be changed.

    `isConnected` and the times of connections and of the claim are ignored: they change while a client has
    the object that it sends back.
    """

    name: str | msgspec.UnsetType = msgspec.UNSET
    tag: str | msgspec.UnsetType = msgspec.UNSET
    id: int | msgspec.UnsetType = msgspec.UNSET
    project_id: int | msgspec.UnsetType = msgspec.UNSET
    creation_time: str | msgspec.UnsetType = msgspec.UNSET
    device_class: str | msgspec.UnsetType = msgspec.UNSET
    home_id: int | msgspec.UnsetType | None = msgspec.UNSET
    claim_time: str | msgspec.UnsetType | None = msgspec.UNSET
    claim_code: str | msgspec.UnsetType | None = msgspec.UNSET
    api_key: str | msgspec.UnsetType | None = msgspec.UNSET


async def to_response(
    context: RestContext, device: DeviceRecord, *, caller: Principal | None, key: str | None = None
) -> models.Device:
    """The Device that this caller may see. `key` is set in the answer that creates the device."""
    presence = (await context.store.presence.of(device.project_id, (device.id,))).get(device.id, NEVER_SEEN)
    return _to_response(context, device, presence, caller, key)


def _to_response(
    context: RestContext,
    device: DeviceRecord,
    presence: DevicePresence,
    caller: Principal | None,
    key: str | None = None,
) -> models.Device:
    claimable_until = device.claimable_until_ms if device.claimable_until_ms > context.store.now_ms() else 0
    return models.Device(
        id=device.id,
        project_id=device.project_id,
        creation_time=timestamp(device.created_ms),
        name=device.name,
        tag=device.tag,
        device_class=device.device_class,
        is_connected=presence.connected,
        home_id=device.home_id,
        api_key=key,
        claim_code=(device.claim_code or None) if _may_see_claim_code(caller) else None,
        claim_time=whole_seconds(device.claimed_ms) if device.claimed_ms else None,
        claim_expiration_time=whole_seconds(claimable_until) if claimable_until else None,
        last_connect_time=_time(presence.last_connect_ms),
        last_disconnect_time=_time(presence.last_disconnect_ms),
    )


def _may_see_claim_code(caller: Principal | None) -> bool:
    """The device itself and project keys see it. Users do not: they could claim it later."""
    return caller is not None and caller.kind is not PrincipalKind.USER


def _time(ms: int | None) -> str | None:
    return timestamp(ms) if ms else None


async def list_devices(context: RestContext, call: Call[DeviceQuery, None]) -> Part[models.Device]:
    """The devices of a home that the caller may see, or of the project."""
    query, caller = call.query, call.principal
    if caller.kind is PrincipalKind.PROJECT_KEY:
        if query.home_id is None and query.project_id is None:
            raise InvalidInput("homeId", "is required, or projectId")
        if query.project_id not in (None, caller.project_id):
            raise PermissionDenied(field="projectId", problem="is not the project of this key")
    elif query.home_id is None:
        raise InvalidInput("homeId", "is required")
    if query.home_id is not None:
        await require_home_of_query(context, caller, query.home_id)
    ids, total = await context.store.devices.slice(call.project_id, query.home_id, query.skip, query.limit)

    async def read(some: Sequence[int]) -> list[models.Device]:
        devices = await context.store.devices.get_many(call.project_id, some)
        presences = await context.store.presence.of(call.project_id, [each.id for each in devices])
        return [_to_response(context, each, presences.get(each.id, NEVER_SEEN), caller) for each in devices]

    return await Part.by_ids(ids, query.skip, total, read)


async def require_home_of_query(context: RestContext, caller: Principal, home_id: int) -> None:
    """Raises PermissionDenied (field homeId) unless the caller may see the home of a query or body."""
    if not await context.authorisation.may(caller, Action.SEE_HOME, home_id):
        raise home_not_visible()


def home_not_visible() -> PermissionDenied:
    """The error for a home that is unknown or not visible to the caller."""
    return PermissionDenied(field="homeId", problem="unknown, or not visible to you")


async def visible_device(context: RestContext, caller: Principal, device_id: int) -> DeviceRecord:
    """The device. Raises NotFound unless the caller may see it."""
    return await _visible(context, caller, await context.store.devices.get(caller.project_id, device_id))


async def _visible(context: RestContext, caller: Principal, device: DeviceRecord | None) -> DeviceRecord:
    if device is None:
        raise NotFound
    await context.authorisation.require_located(caller, Action.SEE_DEVICE, device.id, device.home_id)
    return device


async def get_device(context: RestContext, call: Call[NoQuery, None]) -> models.Device:
    """A device of a home of the caller, of the project, or the calling device."""
    caller = call.principal
    found, presence = await context.store.devices.with_presence(caller.project_id, call.ids["deviceId"])
    device = await _visible(context, caller, found)
    return _to_response(context, device, await context.store.presence.by_record(presence), caller)


async def update_device(context: RestContext, call: Call[NoQuery, DevicePatch]) -> None:
    """Set name and tag. A whole Device is accepted if its other members are unchanged."""
    device, body = await visible_device(context, call.principal, call.ids["deviceId"]), call.body
    current = _to_response(context, device, NEVER_SEEN, None)
    # Users are not shown the claim code and the key, but may send them back if they know them.
    if body.claim_code and body.claim_code == device.claim_code:
        current.claim_code = body.claim_code
    if body.api_key and await _is_key_of(context, body.api_key, device):
        current.api_key = body.api_key
    await context.store.devices.update(device, **changes(body, current, MUTABLE))


async def _is_key_of(context: RestContext, key: str, device: DeviceRecord) -> bool:
    reference = tokens.parse(key)
    if reference is None or reference.project_id != device.project_id:
        return False
    principal = await context.store.principals.lookup(key)
    return principal is not None and (principal.kind, principal.id) == (PrincipalKind.DEVICE, device.id)


async def delete_device(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Take the device out of its home. A device that was provisioned on demand is deleted."""
    await context.store.devices.leave_home(
        await visible_device(context, call.principal, call.ids["deviceId"])
    )


class NewDevice(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Add Device to Home*: `homeId` and `claimCode`, or `token`.

    With a token `homeId` and `deviceClass` are optional, and must be those of the token.
    """

    home_id: models.IdOrZero | None = None
    claim_code: str = ""
    token: str = ""
    device_class: str = ""


class ProvisioningRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of *Initiate On-Demand Device Provisioning*."""

    device_class: str
    device_tag: str = ""


class Registration(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of *Update Device Registration State*; `duration` in seconds."""

    device_id: models.Id
    claimable: bool
    duration: Annotated[int, msgspec.Meta(ge=1, le=MAX_CLAIMABLE_S)] = DEFAULT_CLAIMABLE_S


async def add_device(context: RestContext, call: Call[NoQuery, NewDevice]) -> models.Device:
    """A user claims a device by its code; or a device, or a user for it, sends a provisioning token."""
    body = call.body
    if call.caller is not None:
        await _check_form(context, call.caller.project_id, body)
    return await (_provision if body.token else _claim)(context, call)


async def _check_form(context: RestContext, project_id: int, body: NewDevice) -> None:
    """Raises PermissionDenied for a member of the other kind of project, InvalidInput for a missing one."""
    if await _on_demand(context, project_id):
        if body.claim_code:
            raise PermissionDenied(
                field="claimCode", problem="devices of this project are provisioned on demand"
            )
        if not body.token:
            raise InvalidInput("token", "is required")
    elif body.token:
        raise PermissionDenied(field="token", problem="devices of this project are pre-provisioned")


async def _on_demand(context: RestContext, project_id: int) -> bool:
    project = await context.store.projects.get(project_id)
    return project is not None and project.on_demand_provisioning


async def _claim(context: RestContext, call: Call[NoQuery, NewDevice]) -> models.Device:
    if call.caller is None:
        raise Unauthenticated
    body, devices = call.body, context.store.devices
    if body.home_id is None:
        raise InvalidInput("homeId", "is required")
    if not body.claim_code:
        raise InvalidInput("claimCode", "is required")
    claiming = devices.claim(call.project_id, body.claim_code, body.home_id, call.principal.id)
    device_id = await _in_visible_home(claiming)
    device = await devices.get(call.project_id, device_id)
    if device is None:
        raise UnknownRecord("device", device_id)
    return await to_response(context, device, caller=call.caller)


async def _provision(context: RestContext, call: Call[NoQuery, NewDevice]) -> models.Device:
    body, caller, provisioning = call.body, call.caller, context.store.provisioning
    record = await provisioning.get(body.token, caller.project_id if caller else None)
    if record is None:
        raise PermissionDenied("INVALID_TOKEN", field="token")
    if body.home_id not in (None, record.home_id):
        raise InvalidInput("homeId", "is not the home that the token is for")
    if body.device_class not in ("", record.device_class):
        raise InvalidInput("deviceClass", "is not the class that the token is for")
    redeeming = provisioning.redeem(body.token, record, caller.id if caller else None)
    device, key = await _in_visible_home(redeeming)
    return await to_response(context, device, caller=caller, key=key)


async def _in_visible_home(change: Awaitable[T]) -> T:
    try:
        return await change
    except UnknownRecord as error:
        if error.noun == "home":
            raise home_not_visible() from None
        raise


async def begin_provisioning(
    context: RestContext, call: Call[NoQuery, ProvisioningRequest]
) -> models.DeviceProvisioningToken:
    """Issue a token for a device of this class in this home."""
    if not await _on_demand(context, call.project_id):
        raise PermissionDenied(problem="devices of this project are pre-provisioned")
    token, issued = await context.store.provisioning.begin(
        call.project_id,
        call.ids["homeId"],
        call.principal.id,
        call.body.device_class,
        call.body.device_tag,
        round(context.settings.provisioning_ttl_s * 1000),
    )
    return models.DeviceProvisioningToken(token=token, expiration_time=timestamp(issued.expires_ms))


async def register_device(
    context: RestContext, call: Call[NoQuery, Registration]
) -> models.RegistrationState:
    """Make the device claimable for `duration` seconds, or no longer."""
    body, device_id = call.body, call.principal.id
    if body.device_id != device_id:
        raise PermissionDenied(field="deviceId", problem="needs the key of this device")
    now = context.store.now_ms()
    until = now + body.duration * 1000 if body.claimable else 0
    await context.store.devices.set_claimable(call.project_id, device_id, until)
    return models.RegistrationState(claim_expiration_time=whole_seconds(until or now))


OPERATIONS: Final = (
    Operation(
        name="listDevices",
        method="GET",
        path="/devices",
        tag="Devices",
        summary="List the devices of a home, or with a project key of the project",
        source="spec 001, Get Devices",
        access=Access(user=True, scope=KeyScope.READ),
        handler=list_devices,
        query=DeviceQuery,
        answer=list[models.Device],
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="getDevice",
        method="GET",
        path="/devices/{deviceId}",
        tag="Devices",
        summary="Get a device; a device key gets its own device only",
        source="spec 001, Get Device Info",
        access=Access(user=True, device=True, scope=KeyScope.READ),
        # The handler reads the device anyway, and so its home.
        handler=get_device,
        answer=models.Device,
    ),
    Operation(
        name="updateDevice",
        method="PATCH",
        path="/devices/{deviceId}",
        tag="Devices",
        summary="Change the name or tag of a device",
        source="spec 001, Update Device Info",
        access=Access(user=True, scope=KeyScope.ADMIN),
        action=Action.SEE_DEVICE,
        handler=update_device,
        body=DevicePatch,
        success=204,
    ),
    Operation(
        name="deleteDevice",
        method="DELETE",
        path="/devices/{deviceId}",
        tag="Devices",
        summary="Take a device out of its home; an on-demand device is deleted with its key",
        source="spec 001, Delete Device",
        access=Access(user=True, scope=KeyScope.ADMIN),
        handler=delete_device,
        success=204,
    ),
    Operation(
        name="addDevice",
        method="POST",
        path="/devices",
        tag="Devices",
        summary="Add a device to a home: claim it by its code, or create it by a provisioning token",
        source="spec 001, Add Device to Home",
        access=Access(user=True, anonymous=True),
        handler=add_device,
        body=NewDevice,
        body_kind=BodyKind.FORM,
        success=201,
        located="id",
        answer=models.Device,
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="beginDeviceProvisioning",
        method="POST",
        path="/homes/{homeId}/deviceProvisioning",
        tag="Devices",
        summary="Issue a token that provisions a device of the home on demand",
        source="spec 001, Initiate On-Demand Device Provisioning",
        access=Access(user=True),
        action=Action.SEE_HOME,
        handler=begin_provisioning,
        body=ProvisioningRequest,
        body_kind=BodyKind.FORM,
        answer=models.DeviceProvisioningToken,
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="registerDevice",
        method="POST",
        path="/deviceRegistration",
        tag="Devices",
        summary="Make the calling device claimable for some time, or no longer",
        source="spec 001, Update Device Registration State",
        access=Access(device=True),
        handler=register_device,
        body=Registration,
        body_kind=BodyKind.FORM,
        answer=models.RegistrationState,
        errors=frozenset({401, 403}),
    ),
)
