"""Deletion of users: the record with its sessions and keys, then homes and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.errors import UnknownRecord
from homewire.groups.store import QUIT_ALL_GROUPS
from homewire.homes.models import HomeMember
from homewire.homes.store import Homes
from homewire.sessions.store import EndedSessions
from homewire.store.database import ATTEMPTS, PAGE, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.script import lua, removing

DELETE_USER: Final = removing(
    lua(__package__, "delete_user"), announces={RecordType.USER_DELETED}, charges=True, tombstones=True
)
LEAVE_HOMES: Final = removing(lua(__package__, "leave_homes"), charges=True)
HAND_OVER_HOME: Final = removing(lua(__package__, "hand_over_home"), charges=True)

HOMES_PER_SCRIPT: Final = 50
"""Homes that a deleted user leaves in one script: each is some 20 of the 1,000 elements that it may touch."""
HOMES_LEFT_AT_ONCE: Final = 20
"""Homes that a deleted user leaves before the answer: some 15 ms each, if they are deleted, too. With more of
them housekeeping does the rest after the answer."""
NO_KEY: Final = "none"
"""The id in the name of a key that does not exist."""


class UserDeletion:
    """Deletes users: the record, sessions and keys in one step, then home after home.

    A home where the user was the only member is deleted whole. Where they were the last owner of several
    members (registered or invited), the member with the longest membership becomes owner.
    """

    def __init__(self, database: Database, homes: Homes) -> None:
        self._database = database
        self._homes = homes
        self._ended = EndedSessions(database)

    async def delete(self, project_id: int, user_id: int, *, only_unverified: bool = False) -> None:
        """Delete a user, or finish a deletion. Raises UnknownRecord.

        With `only_unverified` a user stays who has logged in, or can still verify a registration. Of a user
        with many homes only the record and the keys are deleted when this returns; the rest is noted, and any
        node finishes it.
        """
        slot = ProjectSlot(project_id)
        departing = slot.departing_users
        for _ in range(ATTEMPTS):
            answer = await self._remove(project_id, user_id, only_unverified)
            if answer == ["ok", "stays"]:
                return None
            if answer[0] != "moved":
                if answer[0] == "ok" or not await self._database.present(departing, [user_id]):
                    require_ok(answer, project=project_id, user=user_id)
                if int(await self._database.read("ZCARD", slot.user_homes(user_id))) > HOMES_LEFT_AT_ONCE:
                    return await self._database.note_unfinished(project_id, 0)
                return await self._leave(project_id, user_id)
        raise retries_exhausted("user")

    async def sweep(self, project_id: int) -> None:
        """Finish what a crash interrupted."""
        async for page in self._database.index_pages(ProjectSlot(project_id).departing_users):
            for user_id in page:
                await self._leave(project_id, user_id)

    async def _leave(self, project_id: int, user_id: int) -> None:
        await self._leave_homes(project_id, user_id)
        await self._leave_groups(project_id, user_id)
        slot = ProjectSlot(project_id)
        await self._ended.delete_all(slot, slot.user_ended_sessions(user_id))
        await self._database.write("ZREM", ProjectSlot(project_id).departing_users, user_id)

    async def _remove(self, project_id: int, user_id: int, only_unverified: bool) -> list[str]:
        slot = ProjectSlot(project_id)
        # At most sessions.MAX_SESSIONS, so all of them in one page and one script.
        reply = await self._database.read("ZRANGE", slot.user_sessions(user_id), 0, -1)
        ids = [member.decode() for member in reply]
        proofs, *records = await self._database.read_hashes(
            [slot.user_proofs(user_id), *map(slot.session, ids)]
        )
        token = proofs.get("passwordReset", "")
        registrations = await self._database.read("ZRANGE", slot.user_registrations(user_id), 0, -1)
        sessions = [
            name
            for session_id, record in zip(ids, records, strict=True)
            # An expired session may have lost its record already, and its key with it.
            for name in (slot.session(session_id), slot.key(record.get("key", NO_KEY)))
        ]
        return await self._database.change(
            DELETE_USER,
            slot,
            [
                slot.user(user_id), slot.users, slot.emails, slot.phones, slot.external_keys,
                slot.user_sessions(user_id), slot.departing_users, slot.user_homes(user_id),
                slot.user_proofs(user_id), slot.proof(token or NO_KEY),
                slot.user_login_tokens(user_id), slot.sessions, slot.user_derived(user_id),
                slot.user_registrations(user_id), slot.unverified_users, slot.invited_users,
                slot.user_pending(user_id), slot.user_left(user_id), *sessions,
                *(slot.proof(each.decode().partition(" ")[0]) for each in registrations),
            ],
            [
                user_id, len(ids), *ids, token, self._database.now_ms() if only_unverified else "",
                *(each["charged"] for each in records if "charged" in each),
            ],
        )  # fmt: skip

    async def _leave_homes(self, project_id: int, user_id: int) -> None:
        slot = ProjectSlot(project_id)
        # With the deleted homes, which `Homes.of_user` leaves out.
        async for page in self._database.index_pages(slot.user_homes(user_id)):
            for start in range(0, len(page), HOMES_PER_SCRIPT):
                homes = page[start : start + HOMES_PER_SCRIPT]
                names = [name for each in homes for name in (slot.home(each), slot.home_members(each))]
                answer = await self._database.change(
                    LEAVE_HOMES, slot, [slot.user_homes(user_id), *names], [user_id, *homes]
                )
                require_ok(answer, project=project_id)
                for home_id in map(int, answer[1:]):
                    await self._leave_last_home(project_id, home_id, user_id)

    async def _leave_groups(self, project_id: int, user_id: int) -> None:
        """Leave all groups and remove the user's own permissions: no request can grant more of them."""
        slot = ProjectSlot(project_id)
        groups = map(int, await self._database.read("ZRANGE", slot.user_groups(user_id), 0, -1))
        answer = await self._database.change(
            QUIT_ALL_GROUPS,
            slot,
            [
                slot.user_groups(user_id), slot.user_grants(user_id), slot.user_permissions(user_id),
                *map(slot.group_members, groups),
            ],
            [user_id],
        )  # fmt: skip
        require_ok(answer, project=project_id)

    async def _leave_last_home(self, project_id: int, home_id: int, user_id: int) -> None:
        """Take the user out of a home that is left without an owner, or without members."""
        slot = ProjectSlot(project_id)
        for _ in range(ATTEMPTS):
            # Users who are being deleted count, too. A member who joins after this read keeps the home.
            everybody = [
                int(each)
                async for page, _ in self._database.hash_pages(slot.home_members(home_id))
                for each in page
            ]
            members = await self._homes.members(project_id, home_id)
            others = [member for member in members if member.user_id != user_id]
            if not others:
                if await self._delete_home(project_id, home_id, everybody):
                    return None
                continue
            # New members have shorter memberships. If the chosen member leaves, the choice is repeated.
            next_owner = min(others, key=_succession)
            answer = await self._database.change(
                HAND_OVER_HOME,
                slot,
                [slot.user_homes(user_id), slot.home(home_id), slot.home_members(home_id)],
                [user_id, home_id, next_owner.user_id],
            )
            if answer[0] != "moved":
                return require_ok(answer, project=project_id)
        raise retries_exhausted("home")

    async def _delete_home(self, project_id: int, home_id: int, members: Sequence[int]) -> bool:
        """Whether the home is deleted: not if it has another member by now."""
        try:
            return await self._homes.delete(project_id, home_id, members=sorted(set(members))[:PAGE])
        except UnknownRecord:
            # Another node deleted it, with its members.
            return True


def _succession(member: HomeMember) -> tuple[bool, int, int]:
    """Sorts members by the length of their membership, and those who have not accepted behind all others."""
    return member.invited_as is not None, member.since_ms, member.user_id
