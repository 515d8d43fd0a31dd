"""Permissions of users and groups, in projects with access by permission (spec 000, *Listen to events*).

The operations that grant and revoke them are homewire's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from homewire.auth.actions import Action
from homewire.errors import InvalidInput, UnknownRecord
from homewire.permissions.models import HeldPermission, PermissionKind
from homewire.permissions.store import parse
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.decoding import WholeObject
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.store.parts import Part


class PermissionHolder(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The user or the group that has permissions: exactly one of them."""

    user_id: models.IdOrZero | None = None
    group_id: models.IdOrZero | None = None


class PermissionQuery(Paging):
    """The user or the group whose permissions are listed: exactly one of them."""

    user_id: models.Id | None = None
    group_id: models.Id | None = None


class NewPermission(PermissionHolder, frozen=True, kw_only=True, rename="camel"):
    """The permission, and the user or the group that gets it: exactly one of them."""

    permission: str


class RevokedPermission(PermissionHolder, frozen=True, kw_only=True, rename="camel"):
    """The permission, and the user or the group that loses it: exactly one of them."""

    permission: str


async def list_permissions(
    context: RestContext, call: Call[PermissionQuery, None]
) -> Part[models.Permission]:
    """List the permissions in the order of their texts."""
    query, project = call.query, call.project_id
    user_id, group_id = _holder(query.user_id, query.group_id)
    try:
        if user_id is not None:
            if await context.store.users.get(project, user_id) is None:
                raise UnknownRecord("user", user_id)
            found = [_of_user(each) for each in await context.store.permissions.of_user(project, user_id)]
        else:
            permissions = await context.store.groups.permissions(project, group_id or 0)
            found = [models.Permission(permission=str(permission)) for permission in permissions]
    except UnknownRecord as error:
        raise _named(error) from None
    return Part.within(found, query.skip, query.limit)


async def grant_permission(context: RestContext, call: Call[NoQuery, NewPermission]) -> None:
    """Grant the permission. It holds when this is answered."""
    body, project = call.body, call.project_id
    user_id, group_id = _holder(body.user_id, body.group_id)
    permission = parse("permission", body.permission)
    try:
        if user_id is not None:
            await context.store.permissions.grant(project, user_id, permission)
        else:
            await context.store.groups.grant(project, group_id or 0, permission)
    except UnknownRecord as error:
        raise _named(error) from None


async def revoke_permission(context: RestContext, call: Call[RevokedPermission, None]) -> None:
    """Revoke the permission. Connections lose the subscription before this is answered, or are closed."""
    query, project = call.query, call.project_id
    user_id, group_id = _holder(query.user_id, query.group_id)
    permission = parse("permission", query.permission)
    if user_id is not None:
        await context.store.permissions.revoke(project, user_id, permission)
    else:
        await context.store.groups.revoke(project, group_id or 0, permission)


def _of_user(held: HeldPermission) -> models.Permission:
    return models.Permission(
        permission=str(held.permission), granted=held.direct, group_ids=list(held.group_ids) or None
    )


def _holder(user_id: int | None, group_id: int | None) -> tuple[int | None, int | None]:
    if user_id is None and group_id is None:
        raise InvalidInput("userId", "is required, or groupId")
    if user_id is not None and group_id is not None:
        raise InvalidInput("groupId", "must not be given together with userId")
    return user_id, group_id


def _named(error: UnknownRecord) -> Exception:
    """The error for a record that is named in the body and does not exist."""
    field = {"user": "userId", "group": "groupId", "home": "permission", "device": "permission"}
    if error.noun not in field:
        return error
    return InvalidInput(field[error.noun], f"there is no {error.noun} {error.identifier} in the project")


def _spelled(kinds: Sequence[PermissionKind]) -> str:
    return ", ".join(f"`{kind}:<id>`" for kind in kinds)


_PATH: Final = "/projects/{projectId}/permissions"
_DESCRIPTION: Final = (
    f"Permissions are {_spelled(list(PermissionKind))}. They hold in projects whose access control goes by"
    " permission: there they decide, instead of memberships, on access to events, commands and values."
)
_SHARED: Final[dict[str, Any]] = {
    "path": _PATH,
    "tag": "Permissions",
    "source": "homewire's own; effect of permissions: spec 000, Listen to events",
    "action": Action.USE_PROJECT,
}

OPERATIONS: Final = (
    Operation(
        name="listPermissions",
        method="GET",
        summary="List the permissions of a user, with those of their groups, or of a group",
        description=_DESCRIPTION,
        access=Access(scope=KeyScope.READ),
        handler=list_permissions,
        query=PermissionQuery,
        answer=list[models.Permission],
        **_SHARED,
    ),
    Operation(
        name="grantPermission",
        method="POST",
        summary="Grant a permission to a user, or to all members of a group",
        description=f"{_DESCRIPTION}\n\nGranting a permission twice has no further effect.",
        access=Access(scope=KeyScope.ADMIN),
        handler=grant_permission,
        body=NewPermission,
        success=204,
        **_SHARED,
    ),
    Operation(
        name="revokePermission",
        method="DELETE",
        summary="Revoke a permission that was granted to a user or group",
        description="A user who has the permission from another source keeps it. When this is answered,"
        " connections receive no events that only this permission allowed. A connection without any other"
        " access is closed.",
        access=Access(scope=KeyScope.ADMIN),
        handler=revoke_permission,
        query=RevokedPermission,
        success=204,
        **_SHARED,
    ),
)
