"""Checks before an operation whether the caller may see the ids of the path. Invisible ids are like unknown
ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from homewire.auth.access import authorize_with_fresh_location, has_permission, permission_needed
from homewire.auth.models import Principal, PrincipalKind
from homewire.devices.models import DeviceLocation
from homewire.errors import NotFound
from homewire.permissions.models import PermissionKind
from homewire.rest.context import Api


async def home_in_path(api: Api, caller: Principal, ids: Mapping[str, int]) -> None:
    """Check that the home belongs to the project, and that a user is a member of it. Raises NotFound."""
    await require_home(api, caller, ids["homeId"])


async def device_in_path(api: Api, caller: Principal, ids: Mapping[str, int]) -> None:
    """Check that the device is the caller, or belongs to the project and to a home of the user. Raises
    NotFound."""
    await require_device(api, caller, ids["deviceId"])


async def home_written(api: Api, caller: Principal, ids: Mapping[str, int]) -> None:
    """Check that the caller may change the home's values. In a project with access by permission, the
    permission to write the home is needed and sufficient. Raises NotFound, and PermissionDenied for members
    without it."""
    home_id = ids["homeId"]
    permitted = await has_permission(api.directory, caller, PermissionKind.WRITE_HOME, home_id)
    if permitted:
        return
    await require_home(api, caller, home_id)
    if permitted is False:
        raise permission_needed(PermissionKind.WRITE_HOME, home_id)


async def device_written(api: Api, caller: Principal, ids: Mapping[str, int]) -> None:
    """Check that the caller may change the device's values. A device without a home has no permissions."""
    device_id = ids["deviceId"]
    permitted = await has_permission(api.directory, caller, PermissionKind.WRITE_DEVICE, device_id)
    if permitted:
        located = await api.store.devices.locate(caller.project_id, (device_id,))
        if device_id not in located or located[device_id].home_id is None:
            raise NotFound
        return
    await require_device(api, caller, device_id)
    if permitted is False:
        raise permission_needed(PermissionKind.WRITE_DEVICE, device_id)


async def require_home(api: Api, caller: Principal, home_id: int) -> None:
    """Raises NotFound unless the caller may see the home."""
    if caller.kind is PrincipalKind.USER:
        visible = await api.directory.member_of(caller.project_id, caller.id, (home_id,))
    elif caller.kind is PrincipalKind.PROJECT_KEY:
        visible = await api.directory.existing_homes(caller.project_id, (home_id,))
    else:
        visible = set()
    if home_id not in visible:
        raise NotFound


async def require_device(api: Api, caller: Principal, device_id: int) -> DeviceLocation:
    """Where the device is. Raises NotFound unless the caller may see it."""
    if caller.kind is PrincipalKind.DEVICE and caller.id != device_id:
        raise NotFound
    return await authorize_with_fresh_location(
        api.directory, caller.project_id, device_id, partial(_checked, api, caller)
    )


async def _checked(api: Api, caller: Principal, location: DeviceLocation | None) -> DeviceLocation:
    if location is None:
        raise NotFound
    await require_place(api, caller, location.home_id)
    return location


async def require_place(api: Api, caller: Principal, home_id: int | None) -> None:
    """Raises NotFound unless the caller may see a device that is in this home, or (None) in no home."""
    if caller.kind is PrincipalKind.USER:
        if home_id is None:
            raise NotFound
        await require_home(api, caller, home_id)


async def own_project(_api: Api, caller: Principal, ids: Mapping[str, int]) -> None:
    """Raises NotFound unless the project of the path is that of the caller."""
    if ids["projectId"] != caller.project_id:
        raise NotFound
