"""Homes and their members (spec 001, *Homes*)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final, Literal

import msgspec

from homewire.auth.actions import Action
from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import Conflict, InvalidInput, NotFound, PermissionDenied, TooManyRequests
from homewire.homes.members import Invitee, MemberUser
from homewire.homes.models import Home as HomeRecord
from homewire.homes.models import Role
from homewire.homes.store import NO_USER
from homewire.logins.attempt_limits import invitation_limits, limited_action, member_limits
from homewire.messages.models import Message, MessageKind, OutboxMessage
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.decoding import WholeObject, changes
from homewire.rest.operation import Access, BodyKind, Call, NoQuery, Operation, Paging
from homewire.store import checks
from homewire.store.parts import Part
from homewire.timestamps import timestamp

RoleName = Literal["owner", "member"]
ABOUT_INVITEE: Final = ("MEMBER_EXISTS", "MEMBER_LEFT", "TOO_MANY_INVITATIONS")
"""Reasons of refusals that name the field with the invited user."""


class HomeQuery(Paging, kw_only=True, rename="camel"):
    """The user whose homes are listed. A project key may name its project instead."""

    user_id: models.Id | None = None
    project_id: models.Id | None = None


class NewHome(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Create Home*."""

    name: str
    timezone: str | None = None


class HomeChanges(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Update Home*: name and time zone (null or empty: none), with a project key also
    `deactivated`.

    Other members are accepted if unchanged.
    """

    name: str | msgspec.UnsetType = msgspec.UNSET
    timezone: str | msgspec.UnsetType | None = msgspec.UNSET
    id: int | msgspec.UnsetType = msgspec.UNSET
    project_id: int | msgspec.UnsetType = msgspec.UNSET
    creation_time: str | msgspec.UnsetType = msgspec.UNSET
    deactivated: bool | msgspec.UnsetType = msgspec.UNSET


DEACTIVATED: Final = (
    "Connections receive no events of a deactivated home. Events to it or from its devices, commands to "
    "them, and values are refused with 403 `HOME_DEACTIVATED`. It keeps its members, devices and values, "
    "which can be read."
)


def home_response(home: HomeRecord) -> models.Home:
    """The Home of a response."""
    return models.Home(
        id=home.id,
        project_id=home.project_id,
        creation_time=timestamp(home.created_ms),
        name=home.name,
        timezone=home.timezone,
        deactivated=home.deactivated,
    )


def acting_user(caller: Principal) -> int:
    """The `caller_id` of the repository: the calling user, or NO_USER for a project key."""
    return caller.id if caller.kind is PrincipalKind.USER else NO_USER


async def get_homes(context: RestContext, call: Call[HomeQuery, None]) -> Part[models.Home]:
    """List the homes of a user by id; with a project key also those of the project."""
    store, project_id, query = context.store.homes, call.project_id, call.query
    if query.project_id not in (None, project_id):
        raise PermissionDenied(field="projectId", problem="is not the project of the key")
    if query.user_id is not None:
        if not await context.authorisation.may(call.principal, Action.LIST_HOMES, query.user_id):
            raise PermissionDenied(field="userId", problem="is not a user whose homes this key may list")
        ids = await store.of_user(project_id, query.user_id)
        total = len(ids)
        ids = ids[query.skip : None if query.limit is None else query.skip + query.limit]
    elif query.project_id is not None and call.principal.kind is PrincipalKind.PROJECT_KEY:
        ids, total = await store.slice(project_id, query.skip, query.limit)
    else:
        raise InvalidInput("userId", "is required")
    part = await Part.by_ids(ids, query.skip, total, partial(store.all_of, project_id))
    return part.map(home_response)


async def create_home(context: RestContext, call: Call[NoQuery, NewHome]) -> models.Home:
    """Create a home. The calling user becomes its owner."""
    body = call.body
    return home_response(
        await context.store.homes.create(call.project_id, body.name, call.principal.id, body.timezone or None)
    )


async def get_home(context: RestContext, call: Call[NoQuery, None]) -> models.Home:
    """Get a home. A user who was invited to it accepts the invitation by that."""
    if call.principal.kind is PrincipalKind.USER:
        # A user with too many homes cannot accept, and gets the home all the same.
        with suppress(Conflict):
            await context.store.homes.accept(call.project_id, call.ids["homeId"], call.principal.id)
    return home_response(await _home(context, call.project_id, call.ids["homeId"]))


async def update_home(context: RestContext, call: Call[NoQuery, HomeChanges]) -> None:
    """Set name and time zone, as an owner. A project key may also deactivate or activate the home."""
    home_id, is_user = call.ids["homeId"], call.principal.kind is PrincipalKind.USER
    home = await _home(context, call.project_id, home_id)
    mutable = {"name", "timezone"} if is_user else {"name", "timezone", "deactivated"}
    wanted = changes(call.body, home_response(home), mutable)
    deactivated = wanted.pop("deactivated", None)
    given = {field: value or "" for field, value in wanted.items()}
    if deactivated is None:
        await context.store.homes.update(call.project_id, home_id, given, acting_user(call.principal))
    else:
        # Also without a change: an earlier one that was not confirmed must reach all nodes before this is
        # answered.
        await context.store.homes.set_deactivated(call.project_id, home_id, deactivated, given)


async def delete_home(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Delete a home, as an owner. Its devices are in no home afterwards."""
    await context.store.homes.delete(call.project_id, call.ids["homeId"], acting_user(call.principal))


async def _home(context: RestContext, project_id: int, home_id: int) -> HomeRecord:
    home = await context.store.homes.get(project_id, home_id)
    if home is None:
        raise NotFound
    return home


class NewMember(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Add Home Member*: of the first three the one that the account system of the project
    uses."""

    phone_number: str | None = None
    email: str | None = None
    user_id: models.IdOrZero | None = None
    role: RoleName = "member"


class MemberChanges(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Update Home Member*: the role. Other members are accepted if unchanged."""

    role: RoleName | msgspec.UnsetType = msgspec.UNSET
    user_id: int | msgspec.UnsetType = msgspec.UNSET
    creation_time: str | msgspec.UnsetType = msgspec.UNSET
    verified: bool | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType | None = msgspec.UNSET
    phone_number: str | msgspec.UnsetType | None = msgspec.UNSET
    email: str | msgspec.UnsetType | None = msgspec.UNSET
    accepted: bool | msgspec.UnsetType = msgspec.UNSET
    """True, by the member: accept the invitation."""


def member_response(found: MemberUser, caller: Principal) -> models.HomeMember:
    """The HomeMember of a response to `caller`.

    Until a user accepts the invitation, other users see only what the inviter typed, and not whether there is
    such a user.
    """
    member, user = found
    if member.invited_as is not None and caller.kind is PrincipalKind.USER and caller.id != member.user_id:
        return models.HomeMember(
            user_id=member.user_id,
            creation_time=timestamp(member.since_ms),
            verified=False,
            role=member.role.value,
            phone_number=member.invited_as if user.phone else None,
            email=member.invited_as if "@" in member.invited_as else None,
            accepted=False,
        )
    return models.HomeMember(
        user_id=member.user_id,
        creation_time=timestamp(member.since_ms),
        verified=user.verified,
        role=member.role.value,
        name=user.name or None,
        phone_number=user.phone,
        email=user.email,
        accepted=None if member.invited_as is None else False,
    )


async def get_members(context: RestContext, call: Call[Paging, None]) -> Part[models.HomeMember]:
    """List the members by user id."""
    part = await context.store.members.part(
        call.project_id, call.ids["homeId"], call.query.skip, call.query.limit
    )
    return part.map(partial(member_response, caller=call.principal))


async def add_member(context: RestContext, call: Call[NoQuery, NewMember]) -> models.HomeMember:
    """Add a member, and queue an e-mail to the address, if there is one."""
    body, home_id = call.body, call.ids["homeId"]
    project = await context.store.projects.get(call.project_id)
    if project is None:
        raise NotFound
    # An empty field of a form counts as missing.
    invitee = Invitee(email=body.email or None, phone=body.phone_number or None, user_id=body.user_id)
    invitee.check(project.accounts)
    async with AsyncExitStack() as stack:
        if call.principal.kind is PrincipalKind.USER:
            counted = member_limits(context, call.principal.id)
            await stack.enter_async_context(limited_action(context, call.project_id, counted))
        message = await stack.enter_async_context(_invitation(context, call, home_id, invitee))
        try:
            added = await context.store.members.invite(
                project, home_id, invitee, Role(body.role), acting_user(call.principal), message
            )
        except Conflict as error:
            if error.reason in ABOUT_INVITEE:
                error.field = "email" if invitee.email else "phoneNumber" if invitee.phone else "userId"
            raise
    return member_response(added, call.principal)


async def get_member(context: RestContext, call: Call[NoQuery, None]) -> models.HomeMember:
    """Get a member."""
    member = await context.store.members.get(call.project_id, call.ids["homeId"], call.ids["userId"])
    return member_response(member, call.principal)


async def update_member(context: RestContext, call: Call[NoQuery, MemberChanges]) -> None:
    """Set the role, as an owner; or accept the invitation, as the member."""
    home_id, user_id = call.ids["homeId"], call.ids["userId"]
    member = await context.store.members.get(call.project_id, home_id, user_id)
    wanted = changes(call.body, member_response(member, call.principal), ("role", "accepted"))
    if wanted.pop("accepted", member[0].invited_as is None) != (member[0].invited_as is None):
        if acting_user(call.principal) != user_id:
            raise InvalidInput("accepted", "can only be set by the member")
        await context.store.homes.accept(call.project_id, home_id, user_id)
        if wanted.get("role") in (None, member[0].role.value):
            return
    role = Role(wanted["role"]) if "role" in wanted else None
    await context.store.homes.set_role(call.project_id, home_id, user_id, role, acting_user(call.principal))


async def remove_member(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Remove a member, as an owner or the member. A home without members is deleted."""
    home_id, user_id = call.ids["homeId"], call.ids["userId"]
    await context.store.homes.remove_member(call.project_id, home_id, user_id, acting_user(call.principal))


@asynccontextmanager
async def _invitation(
    context: RestContext, call: Call[NoQuery, NewMember], home_id: int, invitee: Invitee
) -> AsyncIterator[OutboxMessage | None]:
    """Within this context the message to the new member, counted by the limits; None without an address."""
    async with AsyncExitStack() as stack:
        home = await context.store.homes.get(call.project_id, home_id)
        prepared: OutboxMessage | None = None
        if invitee.email is not None and home is not None:
            await context.messages.require_room(MessageKind.INVITATION)
            known = await context.store.users.any_by_email(call.project_id, invitee.email)
            # A known user gets the message at the address as they spelled it.
            email = known.email if known is not None and known.email else checks.email(invitee.email)
            counted = invitation_limits(context, call.request, call.principal, email)
            try:
                await stack.enter_async_context(limited_action(context, call.project_id, counted))
            except TooManyRequests:
                # The member is added without a message: repeated additions must not fill a mailbox.
                pass
            else:
                message = Message(call.project_id, MessageKind.INVITATION, email, home_name=home.name)
                prepared = context.messages.prepare(message)
        yield prepared


OPERATIONS: Final = (
    Operation(
        name="getHomes",
        method="GET",
        path="/homes",
        tag="Homes",
        summary="List the homes of a user; with a project key also those of the project",
        source="spec 001, Get Homes",
        access=Access(user=True, scope=KeyScope.READ),
        handler=get_homes,
        query=HomeQuery,
        answer=list[models.Home],
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="createHome",
        method="POST",
        path="/homes",
        tag="Homes",
        summary="Create a home; the user becomes its owner",
        source="spec 001, Create Home",
        access=Access(user=True),
        handler=create_home,
        body=NewHome,
        success=201,
        located="id",
        answer=models.Home,
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="getHome",
        method="GET",
        path="/homes/{homeId}",
        tag="Homes",
        summary="Get a home",
        description="A user who was invited to the home accepts the invitation with this request.",
        source="spec 001, Get Home",
        access=Access(user=True, scope=KeyScope.READ),
        action=Action.SEE_HOME,
        handler=get_home,
        answer=models.Home,
    ),
    Operation(
        name="updateHome",
        method="PATCH",
        path="/homes/{homeId}",
        tag="Homes",
        summary="Change the name or time zone of a home, as an owner",
        description="A project key may also deactivate and activate it. " + DEACTIVATED,
        source="spec 001, Update Home",
        access=Access(user=True, scope=KeyScope.ADMIN),
        action=Action.CHANGE_HOME,
        handler=update_home,
        body=HomeChanges,
        success=204,
    ),
    Operation(
        name="deleteHome",
        method="DELETE",
        path="/homes/{homeId}",
        tag="Homes",
        summary="Delete a home, as an owner",
        source="spec 001, Delete Home",
        access=Access(user=True, scope=KeyScope.ADMIN),
        action=Action.DELETE_HOME,
        handler=delete_home,
        success=204,
    ),
    Operation(
        name="getHomeMembers",
        method="GET",
        path="/homes/{homeId}/members",
        tag="Homes",
        summary="Get the members of a home",
        source="spec 001, Get Home Members",
        access=Access(user=True, scope=KeyScope.READ),
        action=Action.SEE_HOME,
        handler=get_members,
        query=Paging,
        answer=list[models.HomeMember],
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="addHomeMember",
        method="POST",
        path="/homes/{homeId}/members",
        tag="Homes",
        summary="Add a member to a home, by e-mail address, phone number or user id; only owners add owners",
        description="With e-mail accounts the member gets an e-mail, within the limits of messages; beyond "
        "them the member is added without one. A user adds at most user_invitations members a day.\n\n"
        "A member who has no other home in common with the calling user is a member at once, with accepted: "
        "false until the member gets the home (GET /homes/{homeId}) or changes accepted to true. Until then "
        "other users see what the inviter typed, with verified: false, whether or not there is such a user, "
        "and the member's WebSockets without a filter do not receive the home. A user who left a home "
        "cannot be added again by its members for 30 days (403 MEMBER_LEFT). With `homewire project set "
        "--invitations immediate` every member counts as having accepted.",
        source="spec 001, Add Home Member",
        access=Access(user=True, scope=KeyScope.ADMIN),
        action=Action.ADD_MEMBER,
        handler=add_member,
        body=NewMember,
        body_kind=BodyKind.FORM,
        success=201,
        located="user_id",
        answer=models.HomeMember,
        errors=frozenset({401, 403, 429}),
    ),
    Operation(
        name="getHomeMember",
        method="GET",
        path="/homes/{homeId}/members/{userId}",
        tag="Homes",
        summary="Get a member of a home",
        source="spec 001, Get Home Member",
        access=Access(user=True, scope=KeyScope.READ),
        action=Action.SEE_HOME,
        handler=get_member,
        answer=models.HomeMember,
    ),
    Operation(
        name="updateHomeMember",
        method="PATCH",
        path="/homes/{homeId}/members/{userId}",
        tag="Homes",
        summary="Change the role of a member, as an owner; or accept an invitation, as the member",
        source="data models, HomeMember",
        access=Access(user=True, scope=KeyScope.ADMIN),
        action=Action.SEE_HOME,
        handler=update_member,
        body=MemberChanges,
        body_kind=BodyKind.FORM,
        success=204,
    ),
    Operation(
        name="deleteHomeMember",
        method="DELETE",
        path="/homes/{homeId}/members/{userId}",
        tag="Homes",
        summary="Remove a member from a home, as an owner or as the member",
        source="spec 001, Delete Home Member",
        access=Access(user=True, scope=KeyScope.ADMIN),
        action=Action.SEE_HOME,
        handler=remove_member,
        success=204,
    ),
)
