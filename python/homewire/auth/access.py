"""Authorisation of requests: scopes of keys, visible homes and devices, permissions of users, deactivated
homes, bound entities. An invisible id is refused like an unknown one.

Bindings of entities are read from the store for each request, all entities of a body at once, so that a
binding holds from its answer on. Events without an entity cost nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgpack

from homewire.auth.authenticator import HomeDirectory
from homewire.auth.models import Principal, PrincipalKind
from homewire.devices.models import DeviceLocation
from homewire.errors import InvalidInput, NotFound, PermissionDenied, RequestError
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import AccessControl, KeyScope

Allowed = TypeVar("Allowed")


def has_scope(principal: Principal, scope: KeyScope) -> bool:
    """Whether the principal is a project key with this scope, or with `admin`."""
    return principal.kind is PrincipalKind.PROJECT_KEY and not principal.scopes.isdisjoint(
        (scope, KeyScope.ADMIN)
    )


def require_project_key(principal: Principal, scope: KeyScope) -> None:
    """Raise PermissionDenied unless `has_scope`."""
    if not has_scope(principal, scope):
        raise PermissionDenied(needs=f"a project key with the scope {scope}")


async def require_home(directory: HomeDirectory, caller: Principal, home_id: int) -> None:
    """Raises NotFound unless the home belongs to the project and, for a user, the user is a member of it."""
    if caller.kind is PrincipalKind.USER:
        visible = await directory.member_of(caller.project_id, caller.id, (home_id,))
    elif caller.kind is PrincipalKind.PROJECT_KEY:
        visible = await directory.existing_homes(caller.project_id, (home_id,))
    else:
        visible = set()
    if home_id not in visible:
        raise NotFound


async def require_device(directory: HomeDirectory, caller: Principal, device_id: int) -> None:
    """Raises NotFound unless the device is the caller, or is in the project and in a home of the user."""
    if caller.kind is PrincipalKind.DEVICE and caller.id != device_id:
        raise NotFound
    require_location = partial(_require_location, directory, caller)
    await authorize_with_fresh_location(directory, caller.project_id, device_id, require_location)


async def _require_location(
    directory: HomeDirectory, caller: Principal, location: DeviceLocation | None
) -> None:
    if location is None:
        raise NotFound
    await require_home_of_device(directory, caller, location.home_id)


async def require_home_of_device(directory: HomeDirectory, caller: Principal, home_id: int | None) -> None:
    """Raises NotFound unless the caller may see a device that is in this home, or (None) in no home."""
    if caller.kind is PrincipalKind.USER:
        if home_id is None:
            raise NotFound
        await require_home(directory, caller, home_id)


async def require_home_write(directory: HomeDirectory, caller: Principal, home_id: int) -> None:
    """Check that the caller may change the home's values.

    In a project with access by permission, the permission to write the home is needed and sufficient. Raises
    NotFound, and PermissionDenied for members without it.
    """
    permitted = await has_permission(directory, caller, PermissionKind.WRITE_HOME, home_id)
    if permitted:
        return
    await require_home(directory, caller, home_id)
    if permitted is False:
        raise permission_needed(PermissionKind.WRITE_HOME, home_id)


async def require_device_write(directory: HomeDirectory, caller: Principal, device_id: int) -> None:
    """Like `require_home_write`, for a device. A device without a home has no permissions."""
    permitted = await has_permission(directory, caller, PermissionKind.WRITE_DEVICE, device_id)
    if permitted:
        located = await directory.locate_now(caller.project_id, (device_id,))
        if device_id not in located or located[device_id].home_id is None:
            raise NotFound
        return
    await require_device(directory, caller, device_id)
    if permitted is False:
        raise permission_needed(PermissionKind.WRITE_DEVICE, device_id)


async def authorize_with_fresh_location(
    directory: HomeDirectory,
    project_id: int,
    device_id: int,
    judge: Callable[[DeviceLocation | None], Awaitable[Allowed]],
) -> Allowed:
    """The result of `judge` for the location of a device; None: there is no such device.

    When `judge` raises NotFound for a cached location, it is called again with that of the store: another
    node may have moved the device a moment ago.
    """
    located = await directory.locate(project_id, (device_id,))
    try:
        return await judge(located.get(device_id))
    except NotFound:
        located = await directory.locate_now(project_id, (device_id,))
        return await judge(located.get(device_id))


async def has_permission(
    directory: HomeDirectory, caller: Principal, kind: PermissionKind, subject: int
) -> bool | None:
    """Whether the caller has this permission for a home or device.

    None: permissions do not apply, because the caller is no user or the project decides by memberships.
    """
    if caller.kind is not PrincipalKind.USER:
        return None
    project = await directory.project(caller.project_id)
    if project is None or project.access_control is not AccessControl.PERMISSION:
        return None
    return bool(await directory.permissions_of(caller.project_id, caller.id, (f"{kind}:{subject}",)))


def permission_needed(kind: PermissionKind, subject: int) -> PermissionDenied:
    """The refusal of a caller who may see a home or device, and may not change it."""
    return PermissionDenied(needs=f"the permission {Permission(kind, str(subject))}")


DEACTIVATED = "HOME_DEACTIVATED"


async def require_active(directory: HomeDirectory, project_id: int, home_id: int) -> None:
    """Raise InvalidInput, naming the home, if it is deactivated. A home that does not exist is no error
    here."""
    _, deactivated = await split_by_active(directory, project_id, (home_id,))
    if deactivated:
        raise _is_deactivated(home_id)


async def inactive_home_error(directory: HomeDirectory, project_id: int, home_id: int) -> RequestError:
    """The error for a home that is not active: InvalidInput if it is deactivated, NotFound if it does not
    exist."""
    if await directory.existing_homes(project_id, (home_id,)):
        return _is_deactivated(home_id)
    return NotFound()


async def split_by_active(
    directory: HomeDirectory, project_id: int, home_ids: Collection[int]
) -> tuple[set[int], set[int]]:
    """The active homes, and the deactivated ones. It is one look-up if all are active."""
    active = await directory.active_homes(project_id, home_ids)
    if len(active) == len(home_ids):
        return active, set()
    missing = [each for each in home_ids if each not in active]
    return active, await directory.existing_homes(project_id, missing)


def _is_deactivated(home_id: int) -> InvalidInput:
    return InvalidInput("homeId", f"home {home_id} is deactivated", DEACTIVATED)


_HOME, _ENTITY = 2, 4
"""Places in the header of an event's envelope (`rust/core/src/bus/envelope/mod.rs`)."""
_BOUND_ELSEWHERE: Final = "is bound to another home"

Placed = tuple[int, int, bytes]
"""An item's index in its body, its shard and its envelope."""


async def require_binding(
    directory: HomeDirectory, project_id: int, entity_id: str | None, home_id: int
) -> None:
    """Raise InvalidInput if the entity is bound to another home. An entity without a home may be named
    anywhere."""
    if entity_id is None:
        return
    bound = await directory.entity_homes(project_id, (entity_id,))
    if bound.get(entity_id, home_id) != home_id:
        raise bound_elsewhere()


async def items_bound_elsewhere(
    directory: HomeDirectory, project_id: int, placed: Sequence[Placed]
) -> set[int]:
    """The indexes of those items whose entity is bound to another home. One look-up for all."""
    named = {index: named for index, _, envelope in placed if (named := _named(envelope)) is not None}
    bound: Mapping[str, int] = {}
    if named:
        bound = await directory.entity_homes(project_id, {entity_id for entity_id, _ in named.values()})
    return {index for index, (entity_id, home) in named.items() if bound.get(entity_id, home) != home}


def bound_elsewhere() -> InvalidInput:
    """Why such an event is refused."""
    return InvalidInput("entityId", _BOUND_ELSEWHERE)


def _named(envelope: bytes) -> tuple[str, int] | None:
    """Entity and home of an event, if it names an entity."""
    header = msgpack.Unpacker(max_buffer_size=0)
    header.feed(envelope[1:])
    fields = header.unpack()
    return None if fields[_ENTITY] is None else (fields[_ENTITY], fields[_HOME])
