"""Commands on permissions, for projects whose access control is by permission."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from homewire.cli.options import Name, Project, User
from homewire.cli.output import Answer, complain
from homewire.cli.scope import Scope, command
from homewire.errors import UnknownRecord
from homewire.permissions.models import Permission
from homewire.projects.models import AccessControl

permissions = typer.Typer(
    name="permission",
    help="Permissions of users and groups, in projects with access control by permission.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
groups = typer.Typer(
    name="group",
    help="Groups of users that share permissions.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ToUser = Annotated[int | None, typer.Option("--user", help="User id.", show_default=False)]
ToGroup = Annotated[int | None, typer.Option("--group", help="Group id.", show_default=False)]
GroupId = Annotated[int, typer.Option("--group", help="Group id.")]
Read = Annotated[
    list[str] | None,
    typer.Option(
        help="What may be heard: home-events:<home id>, device:<device id> or entity-events:<entity id>;"
        " repeat for more.",
        show_default=False,
    ),
]
Write = Annotated[
    list[str] | None,
    typer.Option(
        help="What may be changed: device:<device id> (commands and values) or home:<home id> (values);"
        " repeat for more.",
        show_default=False,
    ),
]
Change = Callable[[int, int, Permission], Awaitable[None]]


def register(app: typer.Typer) -> None:
    """Add the groups to the command tree."""
    app.add_typer(permissions)
    app.add_typer(groups)


@command(permissions, "grant", changes=True)
async def grant(
    scope: Scope,
    user: ToUser = None,
    group: ToGroup = None,
    read: Read = None,
    write: Write = None,
    project: Project = None,
) -> Answer:
    """Grant permissions to a user, or to all members of a group."""
    store = scope.store
    answer = await _change(
        scope, project, user, group, read, write, store.permissions.grant, store.groups.grant
    )
    project_id = await scope.project(project)
    found = await store.projects.get(project_id)
    if found is not None and found.access_control is AccessControl.MEMBERSHIP:
        complain(f"project {project_id} has access control by membership: permissions have no effect there")
    return answer


@command(permissions, "revoke", changes=True)
async def revoke(
    scope: Scope,
    user: ToUser = None,
    group: ToGroup = None,
    read: Read = None,
    write: Write = None,
    project: Project = None,
) -> Answer:
    """Revoke permissions. Open sockets receive nothing by them once this returns."""
    store = scope.store
    return await _change(
        scope, project, user, group, read, write, store.permissions.revoke, store.groups.revoke
    )


@command(permissions, "list")
async def list_permissions(
    scope: Scope, user: ToUser = None, group: ToGroup = None, project: Project = None
) -> Answer:
    """List the permissions of a user, with those of their groups, or of a group."""
    _one_of(user, group)
    project_id = await scope.project(project)
    if group is not None:
        return [
            {"permission": str(permission)}
            for permission in await scope.store.groups.permissions(project_id, group)
        ]
    if user is None or await scope.store.users.get(project_id, user) is None:
        raise UnknownRecord("user", user)
    return [
        {"permission": str(held.permission), "granted": held.direct, "groupIds": list(held.group_ids)}
        for held in await scope.store.permissions.of_user(project_id, user)
    ]


@command(groups, "create", changes=True)
async def create_group(scope: Scope, name: Name, project: Project = None) -> Answer:
    """Create a group of users."""
    group = await scope.store.groups.create(await scope.project(project), name)
    return {"groupId": group.id}


@command(groups, "delete", changes=True)
async def delete_group(scope: Scope, group: GroupId, project: Project = None) -> Answer:
    """Delete a group. Its members lose the permissions that only the group gave."""
    await scope.store.groups.delete(await scope.project(project), group)
    return {"groupId": group}


@command(groups, "add", changes=True)
async def add_member(scope: Scope, group: GroupId, user: User, project: Project = None) -> Answer:
    """Put a user into a group, with all its permissions."""
    await scope.store.groups.enter(await scope.project(project), group, user)
    return {"groupId": group, "userId": user}


@command(groups, "remove", changes=True)
async def remove_member(scope: Scope, group: GroupId, user: User, project: Project = None) -> Answer:
    """Remove a user from a group. The user loses the permissions that only the group gave."""
    await scope.store.groups.quit(await scope.project(project), group, user)
    return {"groupId": group, "userId": user}


@command(groups, "list")
async def list_groups(scope: Scope, group: ToGroup = None, project: Project = None) -> Answer:
    """List the groups of a project, or the users in one group."""
    project_id = await scope.project(project)
    if group is not None:
        members, _ = await scope.store.groups.members(project_id, group)
        return [{"userId": each} for each in members]
    found, _ = await scope.store.groups.list(project_id)
    return [{"groupId": each.id, "name": each.name} for each in found]


async def _change(
    scope: Scope,
    project: int | None,
    user: int | None,
    group: int | None,
    read: list[str] | None,
    write: list[str] | None,
    of_user: Change,
    of_group: Change,
) -> Answer:
    """Change permissions one by one. All are checked first, so that a mistake changes nothing."""
    # Imported here, because the store takes most of the time of a start.

    from homewire.permissions.store import parse

    _one_of(user, group)
    wanted = [parse("read", f"read:{each}") for each in read or ()]
    wanted += [parse("write", f"write:{each}") for each in write or ()]
    if not wanted:
        raise typer.BadParameter("missing; name a resource with --read or --write", param_hint="--read")
    project_id = await scope.project(project)
    for permission in wanted:
        if user is not None:
            await of_user(project_id, user, permission)
        elif group is not None:
            await of_group(project_id, group, permission)
    holder = {"userId": user} if user is not None else {"groupId": group}
    return {**holder, "permissions": [str(permission) for permission in wanted]}


def _one_of(user: int | None, group: int | None) -> None:
    if (user is None) == (group is None):
        raise typer.BadParameter("give one of --user and --group", param_hint="--user")
