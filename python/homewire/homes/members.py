"""The members of a home with their user records, and invitations by address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.auth.actions import ROLES
from homewire.errors import InvalidInput, UnknownRecord
from homewire.homes.models import HomeMember, Role
from homewire.homes.store import NO_USER, Homes
from homewire.messages.models import OutboxMessage
from homewire.projects.models import AccountSystem, Project
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import changing, lua
from homewire.users.models import User
from homewire.users.store import Users

INVITE_MEMBER: Final = changing(
    lua(__package__, "invite_member", ROLE=ROLES),
    announces={RecordType.MEMBER_ADDED, RecordType.MEMBER_WAITS},
    sends=True,
    charges=True,
)

MemberUser = tuple[HomeMember, User]
"""A membership and its user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitee:
    """How a new member is named: by the one of these that the account system of the project uses."""

    email: str | None = None
    phone: str | None = None
    user_id: int | None = None

    def check(self, accounts: AccountSystem) -> None:
        """Raises InvalidInput for a field of another account system, and for a missing one."""
        given = {
            AccountSystem.EMAIL: ("email", self.email),
            AccountSystem.PHONE: ("phoneNumber", self.phone),
            AccountSystem.BYOU: ("userId", self.user_id),
        }
        for system, (field, value) in given.items():
            if value is not None and system is not accounts:
                raise InvalidInput(field, f"is for projects with {system} accounts; this one has {accounts}")
        field, value = given[accounts]
        if value is None:
            raise InvalidInput(field, f"is required in a project with {accounts} accounts")


class Members:
    """The members of the homes of a project, with their user records."""

    def __init__(self, database: Database, homes: Homes, users: Users) -> None:
        self._database = database
        self._homes = homes
        self._users = users

    async def part(
        self, project_id: int, home_id: int, skip: int = 0, limit: int | None = None
    ) -> Part[MemberUser]:
        """At most `limit` members by user id, without the first `skip`; and how many there are."""
        members = await self._homes.members(project_id, home_id)
        wanted = members[skip : None if limit is None else skip + limit]
        return await Part.by_ids(wanted, skip, len(members), partial(self._with_users, project_id))

    async def get(self, project_id: int, home_id: int, user_id: int) -> MemberUser:
        """A member of a home. Raises UnknownRecord."""
        member = await self._homes.member(project_id, home_id, user_id)
        found = await self._with_users(project_id, [member]) if member is not None else []
        if not found:
            raise UnknownRecord("member", user_id)
        return found[0]

    async def invite(
        self,
        project: Project,
        home_id: int,
        invitee: Invitee,
        role: Role = Role.MEMBER,
        caller_id: int = NO_USER,
        message: OutboxMessage | None = None,
    ) -> MemberUser:
        """Add a member by address, number or id.

        An address without a user gets an invited user, who becomes a registered one by registering it.
        `message` is the message to the address. Raises InvalidInput, UnknownRecord (home), Conflict
        (MEMBER_EXISTS, MEMBER_LEFT, EXCEEDED_MAX_HOMES, TOO_MANY_INVITATIONS, PERMISSION_DENIED).
        """
        invitee.check(project.accounts)
        if invitee.user_id is not None:
            user_id = await self._add(project.id, home_id, invitee.user_id, role, caller_id)
        else:
            user_id = await self._invite(project.id, home_id, invitee, role, caller_id, message)
        return await self.get(project.id, home_id, user_id)

    async def _add(self, project_id: int, home_id: int, user_id: int, role: Role, caller_id: int) -> int:
        try:
            await self._homes.add_member(project_id, home_id, user_id, role, caller_id)
        except UnknownRecord as error:
            if error.noun == "user":
                raise InvalidInput("userId", "is not a user of the project") from error
            raise
        return user_id

    async def _invite(
        self,
        project_id: int,
        home_id: int,
        invitee: Invitee,
        role: Role,
        caller_id: int,
        message: OutboxMessage | None,
    ) -> int:
        slot = ProjectSlot(project_id)
        email = checks.email(invitee.email) if invitee.email is not None else ""
        phone = checks.phone(invitee.phone) if invitee.phone is not None else ""
        index, address = (slot.emails, email.lower()) if email else (slot.phones, phone)
        for _ in range(ATTEMPTS):
            existing = await self._database.read("HGET", index, address)
            # Also for an existing user: the response time must not tell which.
            new_id = await self._database.new_id()
            user_id = int(existing) if existing else new_id
            names, arguments = self._homes.member_arguments(
                slot, home_id, user_id, role, caller_id, email or phone
            )
            answer = await self._database.change(
                INVITE_MEMBER,
                slot,
                [*names, index, slot.unverified_users, slot.invited_users],
                [
                    *arguments,
                    0 if existing else 1, address, email, email.lower(), phone, *(message or ("", "")),
                ],
            )  # fmt: skip
            if answer[0] != "moved":
                require_ok(answer, project=project_id, home=home_id)
                return user_id
        raise retries_exhausted("user")

    async def _with_users(self, project_id: int, members: Sequence[HomeMember]) -> list[MemberUser]:
        """The memberships with their users, without users that were deleted meanwhile."""
        users = await self._users.get_many(project_id, [member.user_id for member in members])
        return [(member, users[member.user_id]) for member in members if member.user_id in users]
