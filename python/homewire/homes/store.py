"""Homes and memberships (spec 001, *Homes*). A membership is stored with the home and with the user, in one
step.

`caller_id` is the user who makes a change. The script checks the role of this user in the same step. 0 stands
for an operator or a project key, which may do what owners may.

A deleted home has no members, devices and entities for readers, before `HomeCleanup` removes their records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.auth.actions import ROLES
from homewire.devices.store import Devices
from homewire.entities.store import Entities
from homewire.errors import Conflict, UnknownRecord
from homewire.homes.models import Home, HomeMember, Role
from homewire.store import checks
from homewire.store.database import PAGE, Database, require_ok
from homewire.store.keys import DAY_MS, ProjectSlot
from homewire.store.script import changing, lua, removing

CREATE_HOME: Final = changing(
    lua(__package__, "create_home"), announces={RecordType.MEMBER_ADDED}, charges=True
)
UPDATE_HOME: Final = changing(lua(__package__, "update_home", ROLE=ROLES))
SET_DEACTIVATED: Final = removing(
    lua(__package__, "set_deactivated"),
    announces={RecordType.HOME_ACTIVATED, RecordType.HOME_DEACTIVATED},
)
DELETE_HOME: Final = removing(
    lua(__package__, "delete_home", ROLE=ROLES), announces={RecordType.HOME_DELETED}, tombstones=True
)
ADD_MEMBER: Final = changing(
    lua(__package__, "add_member", ROLE=ROLES),
    announces={RecordType.MEMBER_ADDED, RecordType.MEMBER_WAITS},
    charges=True,
)
ACCEPT_MEMBERSHIP: Final = changing(
    lua(__package__, "accept_membership"), announces={RecordType.MEMBER_ADDED, RecordType.MEMBER_WAITS}
)
REMOVE_MEMBER: Final = removing(
    lua(__package__, "remove_member", ROLE=ROLES),
    announces={RecordType.MEMBER_REMOVED, RecordType.HOME_DELETED},
    charges=True,
    tombstones=True,
)
SET_ROLE: Final = changing(lua(__package__, "set_role", ROLE=ROLES))
REMOVE_MEMBERS: Final = removing(lua(__package__, "remove_members"), charges=True)
SETTLE_HOME: Final = removing(lua(__package__, "settle_home"), charges=True)

NO_USER: Final = 0
"""The caller, if it is not a user."""
INVITED_BY_ID: Final = "-"
"""`HomeMember.invited_as` of a user who was invited by id."""
MAX_INVITATIONS: Final = 100
"""Invitations of a user that are not accepted."""
LEFT_MS: Final = 30 * DAY_MS
"""How long members cannot add a user again who left the home."""
MAX_LEFT: Final = 200
"""Homes, the latest, that the record of a user lists as left."""
CHUNK: Final = 200
"""Records read in one round trip, so that other requests do not wait for a longer one."""


class Homes:
    """The homes of a project. A user is a member of at most `homes_per_user`; 0: no limit."""

    def __init__(self, database: Database, cleanup: HomeCleanup, homes_per_user: int = 0) -> None:
        self._database = database
        self._cleanup = cleanup
        self.homes_per_user: Final = homes_per_user

    async def create(
        self, project_id: int, name: str, owner_user_id: int, timezone: str | None = None
    ) -> Home:
        """Create a home with its first owner.

        Raises UnknownRecord (project, user), InvalidInput, Conflict (EXCEEDED_MAX_HOMES), QuotaExceeded.
        """
        home = Home(
            await self._database.new_id(), project_id, checks.name("name", name),
            self._database.now_ms(), checks.timezone(timezone) if timezone else None,
        )  # fmt: skip
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            CREATE_HOME,
            slot,
            [
                slot.home(home.id), slot.homes, slot.home_members(home.id),
                slot.user(owner_user_id), slot.user_homes(owner_user_id),
                slot.user_ended_keys(owner_user_id), slot.user_pending(owner_user_id),
            ],
            [home.id, home.created_ms, name, home.timezone or "", owner_user_id, self.homes_per_user],
        )  # fmt: skip
        require_ok(answer, project=project_id, user=owner_user_id)
        return home

    async def get(self, project_id: int, home_id: int) -> Home | None:
        """A home; None for an unknown id."""
        homes = await self.all_of(project_id, [home_id])
        return homes[0] if homes else None

    async def all_of(self, project_id: int, home_ids: Sequence[int]) -> list[Home]:
        """The homes of these ids that exist, in the order of `home_ids`."""
        slot, found = ProjectSlot(project_id), list[Home]()
        for start in range(0, len(home_ids), PAGE):
            page = home_ids[start : start + PAGE]
            records = await self._database.read_hashes(list(map(slot.home, page)))
            found += [
                _home(project_id, each, record) for each, record in zip(page, records, strict=True) if record
            ]
        return found

    async def slice(self, project_id: int, skip: int = 0, limit: int | None = None) -> tuple[list[int], int]:
        """At most `limit` ids of the project's homes, ascending, without the first `skip`; and how many it
        has."""
        return await self._database.index_slice(ProjectSlot(project_id).homes, skip, limit)

    async def update(
        self, project_id: int, home_id: int, changes: Mapping[str, str], caller_id: int = NO_USER
    ) -> None:
        """Set `name` or `timezone` (empty: none). Raises UnknownRecord, InvalidInput, Conflict."""
        slot, fields = ProjectSlot(project_id), _fields(changes)
        if fields:
            answer = await self._database.change(
                UPDATE_HOME, slot, [slot.home(home_id), slot.home_members(home_id)], [caller_id, *fields]
            )
            require_ok(answer, project=project_id, home=home_id)

    async def set_deactivated(
        self, project_id: int, home_id: int, deactivated: bool, changes: Mapping[str, str] | None = None
    ) -> None:
        """Deactivate or activate a home. `changes`, as of `update`, are made in the same step.

        Connections receive nothing of a deactivated home, and it accepts no events, commands and values. It
        keeps its members, devices and values. Raises UnknownRecord, InvalidInput.
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            SET_DEACTIVATED, slot, [slot.home(home_id)], [home_id, int(deactivated), *_fields(changes or {})]
        )
        require_ok(answer, project=project_id, home=home_id)

    async def delete(
        self, project_id: int, home_id: int, caller_id: int = NO_USER, members: Sequence[int] = ()
    ) -> bool:
        """Delete a home. Readers see no members and devices of it from the first step on.

        With `members` (at most PAGE) it is deleted only if it has exactly these members; False if not. After
        a crash housekeeping finishes the deletion, or a second call. Raises UnknownRecord, Conflict
        (PERMISSION_DENIED for a caller who is no owner).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            DELETE_HOME,
            slot,
            [slot.home(home_id), slot.home_members(home_id), slot.homes, slot.deleted_homes],
            [home_id, caller_id, *members],
        )
        if answer[0] == "moved":
            return False
        if answer[0] == "ok" or not await self._database.present(slot.deleted_homes, [home_id]):
            require_ok(answer, project=project_id, home=home_id)
        await self._cleanup.clean_up(slot, home_id)
        return True

    async def sweep(self, project_id: int) -> None:
        """Finish deletions that a crash interrupted."""
        slot = ProjectSlot(project_id)
        async for page in self._database.index_pages(slot.deleted_homes):
            for home_id in page:
                await self._cleanup.clean_up(slot, home_id)

    async def add_member(
        self,
        project_id: int,
        home_id: int,
        user_id: int,
        role: Role = Role.MEMBER,
        caller_id: int = NO_USER,
    ) -> HomeMember:
        """Add a user to a home. Only owners add owners.

        The user has to accept if the caller is a user without another home in common with them. Raises
        UnknownRecord, Conflict (MEMBER_EXISTS, MEMBER_LEFT, EXCEEDED_MAX_HOMES, TOO_MANY_INVITATIONS,
        PERMISSION_DENIED).
        """
        slot = ProjectSlot(project_id)
        names, arguments = self.member_arguments(slot, home_id, user_id, role, caller_id, INVITED_BY_ID)
        answer = await self._database.change(ADD_MEMBER, slot, names, arguments)
        require_ok(answer, project=project_id, home=home_id, user=user_id)
        member = await self.member(project_id, home_id, user_id)
        if member is None:
            raise UnknownRecord("member", user_id)
        return member

    def member_arguments(
        self, slot: ProjectSlot, home_id: int, user_id: int, role: Role, caller_id: int, invited_as: str
    ) -> tuple[list[str], list[str | int]]:
        """Keys and arguments of ADD_MEMBER, and the first ones of INVITE_MEMBER."""
        return [
            slot.home(home_id), slot.home_members(home_id),
            slot.user(user_id), slot.user_homes(user_id), slot.user_ended_keys(user_id),
            slot.user_pending(user_id), slot.user_homes(caller_id), slot.user_pending(caller_id),
            slot.user_left(user_id),
        ], [
            home_id, user_id, Role(role).value, self._database.now_ms(), self.homes_per_user, caller_id,
            invited_as, MAX_INVITATIONS, ]  # fmt: skip

    async def accept(self, project_id: int, home_id: int, user_id: int) -> None:
        """Accept the invitation of a user to a home. Without effect for another member.

        Raises UnknownRecord, and Conflict (EXCEEDED_MAX_HOMES).
        """
        slot = ProjectSlot(project_id)
        pending = slot.user_pending(user_id)
        if await self._database.read("ZSCORE", pending, home_id) is None:
            return
        answer = await self._database.change(
            ACCEPT_MEMBERSHIP,
            slot,
            [
                slot.home(home_id), slot.home_members(home_id), slot.user_homes(user_id), pending,
                slot.user_ended_keys(user_id),
            ],
            [home_id, user_id, self.homes_per_user],
        )  # fmt: skip
        require_ok(answer, project=project_id, home=home_id)

    async def followed_by(self, project_id: int, user_id: int) -> list[int]:
        """The homes that a connection of the user subscribes to by default: without unaccepted
        invitations."""
        homes = await self.of_user(project_id, user_id)
        # After the homes: a home that is added meanwhile is in neither, one accepted meanwhile is announced.
        pending = await self._database.read("ZRANGE", ProjectSlot(project_id).user_pending(user_id), 0, -1)
        unaccepted = set(map(int, pending))
        return [home_id for home_id in homes if home_id not in unaccepted]

    async def remove_member(
        self, project_id: int, home_id: int, user_id: int, caller_id: int = NO_USER
    ) -> None:
        """Remove a member. A home without members is deleted. Members may remove only themselves.

        A user who left cannot be added by other members for `LEFT_MS`. Raises UnknownRecord, Conflict
        (LAST_OWNER, PERMISSION_DENIED).
        """
        slot, now = ProjectSlot(project_id), self._database.now_ms()
        answer = await self._database.change(
            REMOVE_MEMBER,
            slot,
            [
                slot.home(home_id), slot.home_members(home_id), slot.user_homes(user_id), slot.homes,
                slot.deleted_homes, slot.user(user_id), slot.emails, slot.phones, slot.invited_users,
                slot.user_pending(user_id), slot.user_left(user_id),
            ],
            [home_id, user_id, caller_id, now, now + LEFT_MS, MAX_LEFT],
        )  # fmt: skip
        require_ok(answer, project=project_id, home=home_id, member=user_id)
        if answer[1:] == ["home_deleted"]:
            await self._cleanup.clean_up(slot, home_id)

    async def set_role(
        self, project_id: int, home_id: int, user_id: int, role: Role | None, caller_id: int = NO_USER
    ) -> None:
        """Set the role of a member. With None only check whether the caller may.

        Raises UnknownRecord, Conflict (LAST_OWNER, PERMISSION_DENIED).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            SET_ROLE,
            slot,
            [slot.home(home_id), slot.home_members(home_id)],
            [home_id, user_id, Role(role).value if role else "", caller_id],
        )
        require_ok(answer, project=project_id, home=home_id, member=user_id)

    async def members(self, project_id: int, home_id: int) -> list[HomeMember]:
        """The memberships of a home, by user id."""
        slot, found = ProjectSlot(project_id), dict[int, HomeMember]()
        async for fields, departed in self._database.hash_pages(
            slot.home_members(home_id), slot.departing_users
        ):
            for user_id, membership in fields.items():
                if int(user_id) not in departed:
                    found[int(user_id)] = _member(int(user_id), membership)
        if not await self._database.present(slot.homes, [home_id]):
            return []
        return [found[user_id] for user_id in sorted(found)]

    async def member(self, project_id: int, home_id: int, user_id: int) -> HomeMember | None:
        """A membership of a home; None for another user."""
        slot = ProjectSlot(project_id)
        membership = await self._database.read("HGET", slot.home_members(home_id), user_id)
        if not membership or not await self._database.present(slot.homes, [home_id]):
            return None
        return _member(user_id, membership)

    async def of_user(self, project_id: int, user_id: int) -> list[int]:
        """The ids of the homes of a user, ascending."""
        slot = ProjectSlot(project_id)
        pages = self._database.index_pages(slot.user_homes(user_id), hidden=slot.deleted_homes)
        return [home_id async for page in pages for home_id in page]

    async def member_of(self, project_id: int, user_id: int, home_ids: Sequence[int]) -> set[int]:
        """The homes among `home_ids` that the user is a member of."""
        slot, found = ProjectSlot(project_id), set[int]()
        for start in range(0, len(home_ids), PAGE):
            page = home_ids[start : start + PAGE]
            scores, deleted = await self._database.read_beside(
                slot.deleted_homes, "ZMSCORE", slot.user_homes(user_id), *page
            )
            found.update(each for each, score in zip(page, scores, strict=True) if score is not None)
            found -= deleted
        return found

    async def existing(self, project_id: int, home_ids: Sequence[int]) -> set[int]:
        """The homes among `home_ids` that exist in the project."""
        return await self._database.present(ProjectSlot(project_id).homes, home_ids)

    async def active(self, project_id: int, home_ids: Sequence[int]) -> set[int]:
        """The homes among `home_ids` that exist in the project and are not deactivated."""
        slot, found = ProjectSlot(project_id), set[int]()
        for start in range(0, len(home_ids), CHUNK):
            chunk = home_ids[start : start + CHUNK]
            records = await self._database.read_together(
                *(("HMGET", slot.home(each), "created", "deactivated") for each in chunk)
            )
            found.update(
                each
                for each, (created, deactivated) in zip(chunk, records, strict=True)
                if created is not None and deactivated != b"1"
            )
        return found


def deactivated(home_id: int) -> Conflict:
    """The error of a change in a deactivated home."""
    return Conflict("HOME_DEACTIVATED", f"home {home_id} is deactivated")


def _fields(changes: Mapping[str, str]) -> list[str]:
    """Fields and values of a home's record. Raises InvalidInput."""
    fields: list[str] = []
    for field, value in changes.items():
        checked = checks.name(field, value) if field == "name" else value and checks.timezone(value)
        fields += (field, checked)
    return fields


def _home(project_id: int, home_id: int, record: Mapping[str, str]) -> Home:
    return Home(
        home_id, project_id, record["name"], int(record["created"]),
        record.get("timezone") or None, record.get("deactivated") == "1",
    )  # fmt: skip


def _member(user_id: int, membership: bytes) -> HomeMember:
    role, since, *typed = membership.decode().split(" ", 2)
    return HomeMember(user_id, Role(role), int(since), typed[0] if typed else None)


MAX_REMOVED: Final = 110
"""Members that one script removes. Each touches up to nine of the 1,000 elements."""


class HomeCleanup:
    """Removes the records of a deleted home. It can be interrupted and repeated at any point."""

    def __init__(self, database: Database, devices: Devices, entities: Entities) -> None:
        self._database = database
        self._devices = devices
        self._entities = entities

    async def clean_up(self, slot: ProjectSlot, home_id: int) -> None:
        """Remove the records of a deleted home; its tombstone last."""
        await self._remove_members(slot, home_id)
        await self._devices.leave_deleted_home(slot.project_id, home_id)
        await self._entities.leave_deleted_home(slot.project_id, home_id)
        values = slot.values("home", home_id), slot.value_keys("home", home_id)
        require_ok(
            await self._database.change(SETTLE_HOME, slot, [*values, slot.deleted_homes], [home_id]),
            project=slot.project_id,
        )

    async def _remove_members(self, slot: ProjectSlot, home_id: int) -> None:
        async for fields, _ in self._database.hash_pages(slot.home_members(home_id)):
            users = [int(user_id) for user_id in fields]
            for start in range(0, len(users), MAX_REMOVED):
                some = users[start : start + MAX_REMOVED]
                names = [
                    name
                    for each in some
                    for name in (slot.user(each), slot.user_homes(each), slot.user_pending(each))
                ]
                shared = [slot.home_members(home_id), slot.emails, slot.phones, slot.invited_users]
                require_ok(
                    await self._database.change(REMOVE_MEMBERS, slot, [*shared, *names], [home_id, *some])
                )
