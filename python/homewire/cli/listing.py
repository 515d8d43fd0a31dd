"""`list` and `show` of records: apps, users, homes, members, devices. Lists come a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from homewire.cli.options import AnyProject, Device, Home, Project, User
from homewire.cli.output import Answer, Line, Pages
from homewire.cli.scope import Scope, command
from homewire.errors import UnknownRecord
from homewire.timestamps import timestamp

if TYPE_CHECKING:
    from homewire.devices.models import Device as DeviceRecord
    from homewire.homes.members import MemberUser
    from homewire.homes.models import Home as HomeRecord
    from homewire.store.parts import Part
    from homewire.users.models import User as UserRecord

T = TypeVar("T")

Skip = Annotated[
    int, typer.Option("--skip", min=0, help="Leave out so many of the first.", show_default=False)
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=0, help="Show at most so many.", show_default=False)
]
InHome = Annotated[int | None, typer.Option("--home", help="Only those of this home.", show_default=False)]


def register(
    apps: typer.Typer, users: typer.Typer, homes: typer.Typer, members: typer.Typer, devices: typer.Typer
) -> None:
    """Add the commands to the groups of records."""
    command(apps, "list")(list_apps)
    command(users, "list")(list_users)
    command(users, "show")(show_user)
    command(homes, "list")(list_homes)
    command(homes, "show")(show_home)
    command(members, "list")(list_members)
    command(devices, "list")(list_devices)
    command(devices, "show")(show_device)


async def list_apps(scope: Scope, project: Project = None) -> Answer:
    """List the apps of a project."""
    found = await scope.store.apps.list(await scope.project(project))
    return [{"appId": app_id, "createdAt": timestamp(created_ms)} for app_id, created_ms in found]


async def list_users(
    scope: Scope,
    search: Annotated[
        str, typer.Option(help="Only users with this text in name, address, number or external key.")
    ] = "",
    skip: Skip = 0,
    limit: Limit = None,
    project: Project = None,
) -> Pages:
    """List the users of a project, by id."""
    project_id = await scope.project(project)
    return _pages_of(await scope.store.users.part(project_id, skip, limit, search), _user)


async def show_user(scope: Scope, user: User, project: AnyProject = None) -> Answer:
    """Show a user, and the homes that the user is a member of."""
    project_id = await scope.project_of_user(project, user)
    found = await scope.store.users.get(project_id, user)
    if found is None:
        raise UnknownRecord("user", user)
    return {
        **_user(found),
        "projectId": project_id,
        "timeZone": found.ui_time_zone,
        "lastLoginAt": timestamp(found.last_login_ms) if found.last_login_ms else None,
        "homeIds": await scope.store.homes.of_user(project_id, user),
    }


async def list_homes(
    scope: Scope,
    user: Annotated[
        int | None, typer.Option("--user", help="Only those of this user.", show_default=False)
    ] = None,
    skip: Skip = 0,
    limit: Limit = None,
    project: Project = None,
) -> Pages:
    """List the homes of a project or of a user, by id."""
    project_id = await (scope.project(project) if user is None else scope.project_of_user(project, user))
    if user is None:
        ids, total = await scope.store.homes.slice(project_id, skip, limit)
    else:
        of_user = await scope.store.homes.of_user(project_id, user)
        ids, total = of_user[skip : None if limit is None else skip + limit], len(of_user)
    return await _pages(ids, total, partial(scope.store.homes.all_of, project_id), _home)


async def show_home(scope: Scope, home: Home, project: AnyProject = None) -> Answer:
    """Show a home: its members and devices are shown by `member list` and `device list`."""
    project_id = await scope.project_of_home(project, home)
    found = await scope.store.homes.get(project_id, home)
    if found is None:
        raise UnknownRecord("home", home)
    _, devices = await scope.store.devices.page(project_id, home, 0, 0)
    members = await scope.store.homes.members(project_id, home)
    return {**_home(found), "projectId": project_id, "members": len(members), "devices": devices}


async def list_members(
    scope: Scope, home: Home, skip: Skip = 0, limit: Limit = None, project: AnyProject = None
) -> Pages:
    """List the members of a home, by user id."""
    project_id = await scope.project_of_home(project, home)
    return _pages_of(await scope.store.members.part(project_id, home, skip, limit), _member)


async def list_devices(
    scope: Scope, home: InHome = None, skip: Skip = 0, limit: Limit = None, project: Project = None
) -> Pages:
    """List the devices of a home or of the project, by id, without their keys and claim codes."""
    project_id = await (scope.project(project) if home is None else scope.project_of_home(project, home))
    ids, total = await scope.store.devices.slice(project_id, home, skip, limit)
    return await _pages(ids, total, partial(scope.store.devices.get_many, project_id), _device)


async def show_device(scope: Scope, device: Device, project: AnyProject = None) -> Answer:
    """Show a device and whether it is connected, without its key and claim code."""
    project_id = await scope.project_of_device(project, device)
    found = await scope.store.devices.get(project_id, device)
    if found is None:
        raise UnknownRecord("device", device)
    presence = (await scope.store.presence.of(project_id, [device]))[device]
    return {
        **_device(found),
        "projectId": project_id,
        "connected": presence.connected,
        "createdAt": timestamp(found.created_ms),
        "claimedAt": timestamp(found.claimed_ms) if found.claimed_ms else None,
        "claimableUntil": timestamp(found.claimable_until_ms) if found.claimable_until_ms else None,
    }


async def _pages_of(part: Part[T], line: Callable[[T], Line]) -> AsyncIterator[list[Line]]:
    """A part of a list, as it is read."""
    if part.first:
        yield [line(each) for each in part.first]
    if part.rest is not None:
        async for page in part.rest:
            yield [line(each) for each in page]


async def _pages(
    ids: Sequence[int],
    total: int,
    read: Callable[[Sequence[int]], Awaitable[list[T]]],
    line: Callable[[T], Line],
) -> Pages:
    """The records of these ids, as they are read."""
    from homewire.store.parts import Part

    return _pages_of(await Part.by_ids(ids, 0, total, read), line)


def _user(user: UserRecord) -> Line:
    return {
        "userId": user.id,
        "name": user.name,
        "email": user.email,
        "phoneNumber": user.phone,
        "externalKey": user.external_key,
        "verified": user.verified,
        "createdAt": timestamp(user.created_ms),
    }


def _home(home: HomeRecord) -> Line:
    return {
        "homeId": home.id,
        "name": home.name,
        "timezone": home.timezone,
        "deactivated": home.deactivated,
        "createdAt": timestamp(home.created_ms),
    }


def _member(person: MemberUser) -> Line:
    member, user = person
    return {
        "userId": member.user_id,
        "role": member.role.value,
        "name": user.name or None,
        "email": user.email,
        "phoneNumber": user.phone,
        "verified": user.verified,
        "memberSince": timestamp(member.since_ms),
    }


def _device(device: DeviceRecord) -> Line:
    return {
        "deviceId": device.id,
        "homeId": device.home_id,
        "deviceClass": device.device_class,
        "name": device.name,
        "tag": device.tag,
    }
