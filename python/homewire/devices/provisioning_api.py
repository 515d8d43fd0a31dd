"""Adding devices to homes (spec 001, *Add Device to Home* and *Device Registration*).

A project has one of two kinds of devices. Pre-provisioned devices exist before; a user with the claim code
claims one while the device allows it. On-demand devices are created by a token that a member asked for. The
other way is refused. A wrong, expired or used code or token gets the same answer.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Final, TypeVar

import msgspec

from homewire.devices.api import home_not_visible, to_response
from homewire.errors import InvalidInput, PermissionDenied, Unauthenticated, UnknownRecord
from homewire.rest import models
from homewire.rest.context import Api
from homewire.rest.decoding import WholeObject
from homewire.rest.operation import Access, BodyKind, Call, NoQuery, Operation
from homewire.rest.visibility import home_in_path
from homewire.timestamps import timestamp, whole_seconds

DEFAULT_CLAIMABLE_S: Final = 3_600
MAX_CLAIMABLE_S: Final = 86_400

T = TypeVar("T")


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


async def add_device(api: Api, call: Call[NoQuery, NewDevice]) -> models.Device:
    """A user claims a device by its code; or a device, or a user for it, sends a provisioning token."""
    body = call.body
    if call.caller is not None:
        await _check_form(api, call.caller.project_id, body)
    return await (_provision if body.token else _claim)(api, call)


async def _check_form(api: Api, project_id: int, body: NewDevice) -> None:
    """Raises PermissionDenied for a member of the other kind of project, InvalidInput for a missing one."""
    if await _on_demand(api, project_id):
        if body.claim_code:
            raise PermissionDenied(
                field="claimCode", problem="devices of this project are provisioned on demand"
            )
        if not body.token:
            raise InvalidInput("token", "is required")
    elif body.token:
        raise PermissionDenied(field="token", problem="devices of this project are pre-provisioned")


async def _on_demand(api: Api, project_id: int) -> bool:
    project = await api.store.projects.get(project_id)
    return project is not None and project.on_demand_provisioning


async def _claim(api: Api, call: Call[NoQuery, NewDevice]) -> models.Device:
    if call.caller is None:
        raise Unauthenticated
    body, devices = call.body, api.store.devices
    if body.home_id is None:
        raise InvalidInput("homeId", "is required")
    if not body.claim_code:
        raise InvalidInput("claimCode", "is required")
    claiming = devices.claim(call.project_id, body.claim_code, body.home_id, call.principal.id)
    device_id = await _in_visible_home(claiming)
    device = await devices.get(call.project_id, device_id)
    if device is None:
        raise UnknownRecord("device", device_id)
    return await to_response(api, device, caller=call.caller)


async def _provision(api: Api, call: Call[NoQuery, NewDevice]) -> models.Device:
    body, caller, provisioning = call.body, call.caller, api.store.provisioning
    record = await provisioning.get(body.token, caller.project_id if caller else None)
    if record is None:
        raise PermissionDenied("INVALID_TOKEN", field="token")
    if body.home_id not in (None, record.home_id):
        raise InvalidInput("homeId", "is not the home that the token is for")
    if body.device_class not in ("", record.device_class):
        raise InvalidInput("deviceClass", "is not the class that the token is for")
    redeeming = provisioning.redeem(body.token, record, caller.id if caller else None)
    device, key = await _in_visible_home(redeeming)
    return await to_response(api, device, caller=caller, key=key)


async def _in_visible_home(change: Awaitable[T]) -> T:
    try:
        return await change
    except UnknownRecord as error:
        if error.noun == "home":
            raise home_not_visible() from None
        raise


async def begin_provisioning(
    api: Api, call: Call[NoQuery, ProvisioningRequest]
) -> models.DeviceProvisioningToken:
    """Issue a token for a device of this class in this home."""
    if not await _on_demand(api, call.project_id):
        raise PermissionDenied(problem="devices of this project are pre-provisioned")
    token, issued = await api.store.provisioning.begin(
        call.project_id,
        call.ids["homeId"],
        call.principal.id,
        call.body.device_class,
        call.body.device_tag,
        round(api.settings.provisioning_ttl_s * 1000),
    )
    return models.DeviceProvisioningToken(token=token, expiration_time=timestamp(issued.expires_ms))


async def register_device(api: Api, call: Call[NoQuery, Registration]) -> models.RegistrationState:
    """Make the device claimable for `duration` seconds, or no longer."""
    body, device_id = call.body, call.principal.id
    if body.device_id != device_id:
        raise PermissionDenied(field="deviceId", problem="needs the key of this device")
    now = api.store.now_ms()
    until = now + body.duration * 1000 if body.claimable else 0
    await api.store.devices.set_claimable(call.project_id, device_id, until)
    return models.RegistrationState(claim_expiration_time=whole_seconds(until or now))


OPERATIONS: Final = (
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
        visible=home_in_path,
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
