"""The members of a home (spec 001, *Homes*: Home Members)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, Literal

import msgspec

from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from homewire.homes.api import acting_user
from homewire.homes.members import Invitee, MemberUser
from homewire.homes.models import Role
from homewire.logins.attempt_limits import invitation_limits, limited_action, member_limits
from homewire.messages.message import Message, MessageKind
from homewire.messages.models import OutboxMessage
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import Api
from homewire.rest.decoding import WholeObject, changes
from homewire.rest.operation import Access, BodyKind, Call, NoQuery, Operation, Paging
from homewire.rest.visibility import home_in_path
from homewire.store import checks
from homewire.store.parts import Part
from homewire.timestamps import timestamp

RoleName = Literal["owner", "member"]
ABOUT_INVITEE: Final = ("MEMBER_EXISTS", "MEMBER_LEFT", "TOO_MANY_INVITATIONS")
"""Reasons of refusals that name the field with the invited user."""


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


def to_response(found: MemberUser, caller: Principal) -> models.HomeMember:
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


async def get_members(api: Api, call: Call[Paging, None]) -> Part[models.HomeMember]:
    """List the members by user id."""
    part = await api.store.members.part(
        call.project_id, call.ids["homeId"], call.query.skip, call.query.limit
    )
    return part.shown(partial(to_response, caller=call.principal))


async def add_member(api: Api, call: Call[NoQuery, NewMember]) -> models.HomeMember:
    """Add a member, and queue an e-mail to the address, if there is one."""
    body, home_id = call.body, call.ids["homeId"]
    project = await api.store.projects.get(call.project_id)
    if project is None:
        raise NotFound
    # An empty field of a form counts as missing.
    invitee = Invitee(email=body.email or None, phone=body.phone_number or None, user_id=body.user_id)
    invitee.check(project.accounts)
    async with AsyncExitStack() as stack:
        if call.principal.kind is PrincipalKind.USER:
            counted = member_limits(api, call.principal.id)
            await stack.enter_async_context(limited_action(api, call.project_id, counted))
        posting = await stack.enter_async_context(_invitation(api, call, home_id, invitee))
        try:
            added = await api.store.members.invite(
                project, home_id, invitee, Role(body.role), acting_user(call.principal), posting
            )
        except Conflict as error:
            if error.reason in ABOUT_INVITEE:
                error.field = "email" if invitee.email else "phoneNumber" if invitee.phone else "userId"
            raise
    return to_response(added, call.principal)


async def get_member(api: Api, call: Call[NoQuery, None]) -> models.HomeMember:
    """Get a member."""
    member = await api.store.members.get(call.project_id, call.ids["homeId"], call.ids["userId"])
    return to_response(member, call.principal)


async def update_member(api: Api, call: Call[NoQuery, MemberChanges]) -> None:
    """Set the role, as an owner; or accept the invitation, as the member."""
    home_id, user_id = call.ids["homeId"], call.ids["userId"]
    member = await api.store.members.get(call.project_id, home_id, user_id)
    wanted = changes(call.body, to_response(member, call.principal), ("role", "accepted"))
    if wanted.pop("accepted", member[0].invited_as is None) != (member[0].invited_as is None):
        if acting_user(call.principal) != user_id:
            raise InvalidInput("accepted", "can only be set by the member")
        await api.store.homes.accept(call.project_id, home_id, user_id)
        if wanted.get("role") in (None, member[0].role.value):
            return
    role = Role(wanted["role"]) if "role" in wanted else None
    await api.store.homes.set_role(call.project_id, home_id, user_id, role, acting_user(call.principal))


async def remove_member(api: Api, call: Call[NoQuery, None]) -> None:
    """Remove a member, as an owner or the member. A home without members is deleted."""
    home_id, user_id = call.ids["homeId"], call.ids["userId"]
    await api.store.homes.remove_member(call.project_id, home_id, user_id, acting_user(call.principal))


@asynccontextmanager
async def _invitation(
    api: Api, call: Call[NoQuery, NewMember], home_id: int, invitee: Invitee
) -> AsyncIterator[OutboxMessage | None]:
    """Within this context the message to the new member, counted by the limits; None without an address."""
    async with AsyncExitStack() as stack:
        home = await api.store.homes.get(call.project_id, home_id)
        posting: OutboxMessage | None = None
        if invitee.email is not None and home is not None:
            await api.messages.require_room(MessageKind.INVITATION)
            known = await api.store.users.any_by_email(call.project_id, invitee.email)
            # A known user gets the message at the address as they spelled it.
            email = known.email if known is not None and known.email else checks.email(invitee.email)
            counted = invitation_limits(api, call.request, call.principal, email)
            try:
                await stack.enter_async_context(limited_action(api, call.project_id, counted))
            except TooManyRequests:
                # The member is added without a message: repeated additions must not fill a mailbox.
                pass
            else:
                message = Message(call.project_id, MessageKind.INVITATION, email, home_name=home.name)
                posting = api.messages.posting(message)
        yield posting


OPERATIONS: Final = (
    Operation(
        name="getHomeMembers",
        method="GET",
        path="/homes/{homeId}/members",
        tag="Homes",
        summary="Get the members of a home",
        source="spec 001, Get Home Members",
        access=Access(user=True, scope=KeyScope.READ),
        visible=home_in_path,
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
        visible=home_in_path,
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
        visible=home_in_path,
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
        visible=home_in_path,
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
        visible=home_in_path,
        handler=remove_member,
        success=204,
    ),
)
