"""Permissions of users and groups, where a project's access control goes by them (spec 000, *Listen to
events*, which says what they open; granting them is homewire's own)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from homewire.entities.api import own_project
from homewire.errors import InvalidInput, UnknownRecord
from homewire.permissions.models import HeldPermission, PermissionKind
from homewire.permissions.store import parsed
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import Api
from homewire.rest.decoding import WholeObject
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.store.parts import Part


class Holder(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """Who has permissions: a user or a group, exactly one of them."""

    user_id: models.IdOrZero | None = None
    group_id: models.IdOrZero | None = None


class ListPermissions(Paging):
    """Whose permissions: those of a user or of a group, exactly one of them."""

    user_id: models.Id | None = None
    group_id: models.Id | None = None


class NewPermission(Holder, frozen=True, kw_only=True, rename="camel"):
    """What is granted, and to whom: a user or a group, exactly one of them."""

    permission: str


class EndedPermission(Holder, frozen=True, kw_only=True, rename="camel"):
    """What is revoked, and from whom: a user or a group, exactly one of them."""

    permission: str


async def list_permissions(api: Api, call: Call[ListPermissions, None]) -> Part[models.Permission]:
    """By their texts."""
    query, project = call.query, call.project_id
    user_id, group_id = _holder(query.user_id, query.group_id)
    try:
        if user_id is not None:
            if await api.store.users.get(project, user_id) is None:
                raise UnknownRecord("user", user_id)
            found = [_of_user(each) for each in await api.store.permissions.of_user(project, user_id)]
        else:
            rights = await api.store.groups.rights(project, group_id or 0)
            found = [models.Permission(permission=str(right)) for right in rights]
    except UnknownRecord as error:
        raise _named(error) from None
    return Part.within(found, query.skip, query.limit)


async def grant_permission(api: Api, call: Call[NoQuery, NewPermission]) -> None:
    """From its answer on."""
    body, project = call.body, call.project_id
    user_id, group_id = _holder(body.user_id, body.group_id)
    right = parsed("permission", body.permission)
    try:
        if user_id is not None:
            await api.store.permissions.grant(project, user_id, right)
        else:
            await api.store.groups.grant(project, group_id or 0, right)
    except UnknownRecord as error:
        raise _named(error) from None


async def revoke_permission(api: Api, call: Call[EndedPermission, None]) -> None:
    """Open sockets lose what it let them hear before this is answered, or are closed."""
    query, project = call.query, call.project_id
    user_id, group_id = _holder(query.user_id, query.group_id)
    right = parsed("permission", query.permission)
    if user_id is not None:
        await api.store.permissions.revoke(project, user_id, right)
    else:
        await api.store.groups.revoke(project, group_id or 0, right)


def _of_user(held: HeldPermission) -> models.Permission:
    return models.Permission(
        permission=str(held.right), granted=held.direct, group_ids=list(held.group_ids) or None
    )


def _holder(user_id: int | None, group_id: int | None) -> tuple[int | None, int | None]:
    if user_id is None and group_id is None:
        raise InvalidInput("userId", "is required, or groupId")
    if user_id is not None and group_id is not None:
        raise InvalidInput("groupId", "must not stand beside userId")
    return user_id, group_id


def _named(error: UnknownRecord) -> Exception:
    """What names something in a query or body that does not exist."""
    field = {"user": "userId", "group": "groupId", "home": "permission", "device": "permission"}
    if error.noun not in field:
        return error
    return InvalidInput(field[error.noun], f"there is no {error.noun} {error.identifier} in the project")


def _spelled(kinds: Sequence[PermissionKind]) -> str:
    return ", ".join(f"`{kind}:<id>`" for kind in kinds)


_PATH: Final = "/projects/{projectId}/permissions"
_DESCRIPTION: Final = (
    f"Permissions are {_spelled(list(PermissionKind))}. They count in projects whose access control goes by"
    " permission: there they, and not memberships, say who hears events, sends commands and changes values."
)
_SHARED: Final[dict[str, Any]] = {
    "path": _PATH,
    "tag": "Permissions",
    "source": "homewire's own; what permissions open: spec 000, Listen to events",
    "visible": own_project,
}

OPERATIONS: Final = (
    Operation(
        name="listPermissions",
        method="GET",
        summary="List the permissions of a user, with those of their groups, or of a group",
        description=_DESCRIPTION,
        access=Access(scope=KeyScope.READ),
        handler=list_permissions,
        query=ListPermissions,
        answer=list[models.Permission],
        **_SHARED,
    ),
    Operation(
        name="grantPermission",
        method="POST",
        summary="Grant a permission to a user, or to everybody in a group",
        description=f"{_DESCRIPTION}\n\nGranting once more what is granted changes nothing.",
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
        description="Who has it from another source, too, keeps it. Sockets that it let hear something hear"
        " nothing of that any more once this is answered; those that are left with nothing are closed.",
        access=Access(scope=KeyScope.ADMIN),
        handler=revoke_permission,
        query=EndedPermission,
        success=204,
        **_SHARED,
    ),
)
