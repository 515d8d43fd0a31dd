"""`list` and `show` of records: what is there, without keys."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from homewire.cli.options import AnyProject, Device, Home, Project, User
from homewire.cli.output import Answer
from homewire.cli.records import apps, devices, homes, members, users
from homewire.cli.scope import Scope, command
from homewire.errors import UnknownRecord
from homewire.model import Home as HomeRecord
from homewire.model import User as UserRecord

Search = Annotated[
    str | None,
    typer.Option(help="Only users whose name, address or number contains this.", show_default=False),
]
Skip = Annotated[int, typer.Option(min=0, help="How many to leave out at the beginning.")]
Limit = Annotated[int | None, typer.Option(min=0, help="How many at the most.", show_default=False)]


def register(_app: typer.Typer) -> None:
    """Add the commands to the groups of `records`."""
    command(users, "list")(list_users)
    command(users, "show")(show_user)
    command(homes, "list")(list_homes)
    command(homes, "show")(show_home)
    command(members, "list")(list_members)
    command(apps, "list")(list_apps)
    command(apps, "delete")(delete_app)
    command(devices, "show")(show_device)


async def list_users(
    scope: Scope, search: Search = None, skip: Skip = 0, limit: Limit = None, project: Project = None
) -> Answer:
    """List the users of a project."""
    found, _ = await scope.store.users.list(await scope.project(project), skip, limit, search or "")
    return [_user(each) for each in found]


async def show_user(scope: Scope, user: User, project: AnyProject = None) -> Answer:
    """Show a user and their homes."""
    project_id = await scope.project_of_user(project, user)
    found = await scope.store.users.get(project_id, user)
    if found is None:
        raise UnknownRecord("user", user)
    return _user(found) | {
        "projectId": project_id,
        "homes": await scope.store.homes.of_user(project_id, user),
    }


async def list_homes(
    scope: Scope,
    user: Annotated[int | None, typer.Option(help="Only the homes of this user.", show_default=False)] = None,
    skip: Skip = 0,
    limit: Limit = None,
    project: Project = None,
) -> Answer:
    """List the homes of a project, or of a user."""
    project_id = await scope.project(project)
    store = scope.store.homes
    if user is None:
        ids, _ = await store.slice(project_id, skip, limit)
    else:
        of_user = await store.of_user(project_id, user)
        ids = of_user[skip:] if limit is None else of_user[skip : skip + limit]
    return [_home(each) for each in await store.all_of(project_id, ids)]


async def show_home(scope: Scope, home: Home, project: AnyProject = None) -> Answer:
    """Show a home, with how many members and devices it has."""
    project_id = await scope.project_of_home(project, home)
    found = await scope.store.homes.get(project_id, home)
    if found is None:
        raise UnknownRecord("home", home)
    _, devices_in = await scope.store.devices.page(project_id, home)
    members_in = len(await scope.store.homes.members(project_id, home))
    return _home(found) | {"projectId": project_id, "members": members_in, "devices": devices_in}


async def list_members(scope: Scope, home: Home, project: AnyProject = None) -> Answer:
    """List the members of a home."""
    project_id = await scope.project_of_home(project, home)
    return [
        {"userId": member.user_id, "role": member.role.value}
        for member in await scope.store.homes.members(project_id, home)
    ]


async def list_apps(scope: Scope, project: Project = None) -> Answer:
    """List the apps of a project."""
    return [{"appId": app_id} for app_id in await scope.store.apps.list(await scope.project(project))]


async def delete_app(
    scope: Scope, app_id: Annotated[str, typer.Option("--id", help="App id.")], project: Project = None
) -> Answer:
    """Delete an app: nobody signs in with it any more. Sessions that began with it go on."""
    await scope.store.apps.delete(await scope.project(project), app_id)
    return {"appId": app_id}


async def show_device(scope: Scope, device: Device, project: AnyProject = None) -> Answer:
    """Show a device, and whether it is connected."""
    project_id = await scope.project_of_device(project, device)
    found = await scope.store.devices.get(project_id, device)
    if found is None:
        raise UnknownRecord("device", device)
    presence = (await scope.store.presence.of(project_id, [device]))[device]
    return {
        "deviceId": found.id,
        "projectId": project_id,
        "homeId": found.home_id,
        "deviceClass": found.device_class,
        "name": found.name,
        "tag": found.tag,
        "connected": presence.connected,
    }


def _user(user: UserRecord) -> dict[str, Any]:
    return {
        "userId": user.id,
        "name": user.name,
        "email": user.email,
        "phone": user.phone,
        "verified": user.verified,
    }


def _home(home: HomeRecord) -> dict[str, Any]:
    return {
        "homeId": home.id,
        "name": home.name,
        "timezone": home.timezone,
        "deactivated": home.deactivated,
    }
