"""The members of a home (spec 001, *Homes*: Home Members)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, Literal

import msgspec

from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from homewire.homes.api import asking
from homewire.homes.members import Invitee, Person
from homewire.homes.models import Role
from homewire.logins.attempt_limits import invitation_limits, limited_action, member_limits
from homewire.messages.message import Message, MessageKind
from homewire.messages.models import Posting
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
"""Refusals that the field is to blame for by which the invited are named."""


class NewMember(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Add Home Member*: one of the first three, as the account system of the project says."""

    phone_number: str | None = None
    email: str | None = None
    user_id: models.IdOrZero | None = None
    role: RoleName = "member"


class MemberChanges(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Update Home Member*: the role; the rest may stand as it is."""

    role: RoleName | msgspec.UnsetType = msgspec.UNSET
    user_id: int | msgspec.UnsetType = msgspec.UNSET
    creation_time: str | msgspec.UnsetType = msgspec.UNSET
    verified: bool | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType | None = msgspec.UNSET
    phone_number: str | msgspec.UnsetType | None = msgspec.UNSET
    email: str | msgspec.UnsetType | None = msgspec.UNSET
    accepted: bool | msgspec.UnsetType = msgspec.UNSET
    """True of oneself: the user accepts what a stranger added them to."""


def shown(person: Person, caller: Principal) -> models.HomeMember:
    """A member as answers show one to somebody.

    Of a user who has not accepted, other users are told what the inviter typed, and nothing else: not even
    whether there is such a user.
    """
    member, user = person
    if member.typed is not None and caller.kind is PrincipalKind.USER and caller.id != member.user_id:
        return models.HomeMember(
            user_id=member.user_id,
            creation_time=timestamp(member.since_ms),
            verified=False,
            role=member.role.value,
            phone_number=member.typed if user.phone else None,
            email=member.typed if "@" in member.typed else None,
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
        accepted=None if member.typed is None else False,
    )


async def get_members(api: Api, call: Call[Paging, None]) -> Part[models.HomeMember]:
    """The members, by user id."""
    part = await api.store.members.part(
        call.project_id, call.ids["homeId"], call.query.skip, call.query.limit
    )
    return part.shown(partial(shown, caller=call.principal))


async def add_member(api: Api, call: Call[NoQuery, NewMember]) -> models.HomeMember:
    """Somebody becomes a member, and is mailed to where there are e-mail addresses."""
    body, home_id = call.body, call.ids["homeId"]
    project = await api.store.projects.get(call.project_id)
    if project is None:
        raise NotFound
    # A form says nothing by an empty field.
    invitee = Invitee(email=body.email or None, phone=body.phone_number or None, user_id=body.user_id)
    invitee.check(project.accounts)
    async with AsyncExitStack() as stack:
        if call.principal.kind is PrincipalKind.USER:
            counted = member_limits(api, call.principal.id)
            await stack.enter_async_context(limited_action(api, call.project_id, counted))
        posting = await stack.enter_async_context(_invitation(api, call, home_id, invitee))
        try:
            added = await api.store.members.invite(
                project, home_id, invitee, Role(body.role), asking(call.principal), posting
            )
        except Conflict as error:
            if error.reason in ABOUT_INVITEE:
                error.field = "email" if invitee.email else "phoneNumber" if invitee.phone else "userId"
            raise
    return shown(added, call.principal)


async def get_member(api: Api, call: Call[NoQuery, None]) -> models.HomeMember:
    """One member."""
    person = await api.store.members.get(call.project_id, call.ids["homeId"], call.ids["userId"])
    return shown(person, call.principal)


async def update_member(api: Api, call: Call[NoQuery, MemberChanges]) -> None:
    """Owners say who is an owner. Everybody says for themselves whether they accept."""
    home_id, user_id = call.ids["homeId"], call.ids["userId"]
    person = await api.store.members.get(call.project_id, home_id, user_id)
    wanted = changes(call.body, shown(person, call.principal), ("role", "accepted"))
    if wanted.pop("accepted", person[0].typed is None) != (person[0].typed is None):
        if asking(call.principal) != user_id:
            raise InvalidInput("accepted", "is for the member to say")
        await api.store.homes.accept(call.project_id, home_id, user_id)
        if wanted.get("role") in (None, person[0].role.value):
            return
    role = Role(wanted["role"]) if "role" in wanted else None
    await api.store.homes.set_role(call.project_id, home_id, user_id, role, asking(call.principal))


async def remove_member(api: Api, call: Call[NoQuery, None]) -> None:
    """Owners remove others, everybody may leave. With the last member the home goes."""
    home_id, user_id = call.ids["homeId"], call.ids["userId"]
    await api.store.homes.remove_member(call.project_id, home_id, user_id, asking(call.principal))


@asynccontextmanager
async def _invitation(
    api: Api, call: Call[NoQuery, NewMember], home_id: int, invitee: Invitee
) -> AsyncIterator[Posting | None]:
    """What tells who is added, in the body, if somebody is to be told; it is counted."""
    async with AsyncExitStack() as stack:
        home = await api.store.homes.get(call.project_id, home_id)
        posting: Posting | None = None
        if invitee.email is not None and home is not None:
            await api.messages.require_room(MessageKind.INVITATION)
            known = await api.store.users.any_by_email(call.project_id, invitee.email)
            # Who is known is written to as they spelled it themselves.
            email = known.email if known is not None and known.email else checks.email(invitee.email)
            counted = invitation_limits(api, call.request, call.principal, email)
            try:
                await stack.enter_async_context(limited_action(api, call.project_id, counted))
            except TooManyRequests:
                # A member all the same: only nobody's mailbox is to be filled by adding and removing them.
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
        summary="Add a member to a home, by e-mail address, phone number or user id; only owners make owners",
        description="With e-mail accounts a mail tells the member, within the limits of messages; beyond "
        "them the member is added without one. A user adds user_invitations members a day at most.\n\n"
        "A member whom a stranger added (a user who is in no other home with them) is a member at once, with "
        "accepted: false until the member gets the home (GET /homes/{homeId}) or changes accepted to true. "
        "Until then other users see what was typed, with verified: false, whether or not there is such a "
        "user, and the member's WebSockets without a filter do not receive the home. A user who left a home "
        "is not added again by its members for 30 days (403 MEMBER_LEFT). With `homewire project set "
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
        summary="Change the role of a member; only owners may. Or accept to be one",
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
        summary="Remove a member from a home; owners remove others, everybody may leave",
        source="spec 001, Delete Home Member",
        access=Access(user=True, scope=KeyScope.ADMIN),
        visible=home_in_path,
        handler=remove_member,
        success=204,
    ),
)
