"""Groups of users that have permissions together. homewire's own; for servers, with a project key."""

from __future__ import annotations

from typing import Final

import msgspec

from homewire.auth.actions import Action
from homewire.groups.store import Group as GroupRecord
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.store.parts import Part
from homewire.timestamps import timestamp


class NewGroup(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Create Group*."""

    name: str


def to_response(group: GroupRecord) -> models.Group:
    """The Group of a response."""
    return models.Group(
        id=group.id, project_id=group.project_id, creation_time=timestamp(group.created_ms), name=group.name
    )


async def list_groups(context: RestContext, call: Call[Paging, None]) -> Part[models.Group]:
    """List the groups by id."""
    return (await context.store.groups.part(call.project_id, call.query.skip, call.query.limit)).map(
        to_response
    )


async def create_group(context: RestContext, call: Call[NoQuery, NewGroup]) -> models.Group:
    """Create a group without members and permissions."""
    return to_response(await context.store.groups.create(call.project_id, call.body.name))


async def get_group(context: RestContext, call: Call[NoQuery, None]) -> models.Group:
    """Get a group."""
    return to_response(await context.store.groups.get(call.project_id, call.ids["groupId"]))


async def delete_group(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Delete a group. Its members have lost its permissions when this is answered."""
    await context.store.groups.delete(call.project_id, call.ids["groupId"])


async def list_members(context: RestContext, call: Call[Paging, None]) -> Part[models.GroupMember]:
    """List the members by user id."""
    members, total = await context.store.groups.members(
        call.project_id, call.ids["groupId"], call.query.skip, call.query.limit
    )
    # A group has at most 300 members: one page.
    return Part(members, call.query.skip, len(members), total).map(
        lambda each: models.GroupMember(user_id=each)
    )


async def add_member(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Add a member. Without effect for a member."""
    await context.store.groups.enter(call.project_id, call.ids["groupId"], call.ids["userId"])


async def remove_member(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Remove a member, who has lost the permissions of the group when this is answered."""
    await context.store.groups.quit(call.project_id, call.ids["groupId"], call.ids["userId"])


_ALL: Final = "/projects/{projectId}/groups"
_ONE: Final = _ALL + "/{groupId}"
_MEMBERS: Final = _ONE + "/members"
_MEMBER: Final = _MEMBERS + "/{userId}"
_SOURCE: Final = "homewire's own"
_READ: Final = Access(scope=KeyScope.READ)
_CHANGE: Final = Access(scope=KeyScope.ADMIN)

OPERATIONS: Final = (
    Operation(
        name="listGroups",
        method="GET",
        path=_ALL,
        tag="Permissions",
        summary="List the groups of users",
        source=_SOURCE,
        access=_READ,
        action=Action.USE_PROJECT,
        handler=list_groups,
        query=Paging,
        answer=list[models.Group],
    ),
    Operation(
        name="createGroup",
        method="POST",
        path=_ALL,
        tag="Permissions",
        summary="Create a group of users that have permissions together",
        source=_SOURCE,
        access=_CHANGE,
        action=Action.USE_PROJECT,
        handler=create_group,
        body=NewGroup,
        success=201,
        located="id",
        answer=models.Group,
    ),
    Operation(
        name="getGroup",
        method="GET",
        path=_ONE,
        tag="Permissions",
        summary="Get a group of users",
        source=_SOURCE,
        access=_READ,
        action=Action.USE_PROJECT,
        handler=get_group,
        answer=models.Group,
    ),
    Operation(
        name="deleteGroup",
        method="DELETE",
        path=_ONE,
        tag="Permissions",
        summary="Delete a group; its members lose permissions without another source",
        source=_SOURCE,
        access=_CHANGE,
        action=Action.USE_PROJECT,
        handler=delete_group,
        success=204,
    ),
    Operation(
        name="listGroupMembers",
        method="GET",
        path=_MEMBERS,
        tag="Permissions",
        summary="List the users in a group",
        source=_SOURCE,
        access=_READ,
        action=Action.USE_PROJECT,
        handler=list_members,
        query=Paging,
        answer=list[models.GroupMember],
    ),
    Operation(
        name="addGroupMember",
        method="PUT",
        path=_MEMBER,
        tag="Permissions",
        summary="Add a user to a group, with all its permissions",
        source=_SOURCE,
        access=_CHANGE,
        action=Action.USE_PROJECT,
        handler=add_member,
        success=204,
    ),
    Operation(
        name="removeGroupMember",
        method="DELETE",
        path=_MEMBER,
        tag="Permissions",
        summary="Remove a user from a group; permissions without another source are lost",
        source=_SOURCE,
        access=_CHANGE,
        action=Action.USE_PROJECT,
        handler=remove_member,
        success=204,
    ),
)
