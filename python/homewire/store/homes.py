"""Homes and who is a member of them. Membership is kept on both sides, in one step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from homewire.model import Home, HomeMember, Role
from homewire.store import checks
from homewire.store.database import PAGE, Database, require_ok
from homewire.store.devices import Devices
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.homes import (
    ADD_MEMBER,
    CREATE_HOME,
    DELETE_HOME,
    EMPTY_HOME,
    REMOVE_MEMBER,
)

MEMBERS_SWEPT: Final = 400
"""Members that one script takes out of a deleted home; of the 1,000 elements it may touch, each takes two."""


class Homes:
    """The homes of a project."""

    def __init__(self, database: Database, devices: Devices) -> None:
        self._database = database
        self._devices = devices

    async def create(self, project_id: int, name: str, owner_user_id: int) -> Home:
        """A new home with its first owner. Raises UnknownRecord without the project or the user."""
        checks.name("name", name)
        home = Home(await self._database.new_id(), project_id, name, self._database.now_ms())
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            CREATE_HOME,
            slot,
            [
                slot.home(home.id), slot.homes, slot.home_members(home.id),
                slot.user(owner_user_id), slot.user_homes(owner_user_id),
            ],
            [home.id, home.created_ms, name, owner_user_id],
        )  # fmt: skip
        require_ok(answer, project=project_id, user=owner_user_id)
        return home

    async def get(self, project_id: int, home_id: int) -> Home | None:
        """A home, None if there is none of this id."""
        record = await self._database.read_hash(ProjectSlot(project_id).home(home_id))
        return Home(home_id, project_id, record["name"], int(record["created"])) if record else None

    async def add_member(
        self, project_id: int, home_id: int, user_id: int, role: Role = Role.MEMBER
    ) -> HomeMember:
        """Make a user a member. Raises UnknownRecord, and Conflict (MEMBER_EXISTS)."""
        slot, member = ProjectSlot(project_id), HomeMember(user_id, Role(role), self._database.now_ms())
        answer = await self._database.change(
            ADD_MEMBER,
            slot,
            [
                slot.home(home_id), slot.home_members(home_id),
                slot.user(user_id), slot.user_homes(user_id),
            ],
            [home_id, user_id, member.role.value, member.since_ms],
        )  # fmt: skip
        require_ok(answer, project=project_id, home=home_id, user=user_id)
        return member

    async def remove_member(self, project_id: int, home_id: int, user_id: int) -> None:
        """End a membership. Raises UnknownRecord, and Conflict (LAST_OWNER)."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            REMOVE_MEMBER,
            slot,
            [slot.home(home_id), slot.home_members(home_id), slot.user_homes(user_id)],
            [home_id, user_id],
        )
        require_ok(answer, project=project_id, home=home_id, member=user_id)

    async def delete(self, project_id: int, home_id: int) -> None:
        """Delete a home. It has no members and devices any more from its first step on.

        What remains of them is swept after that; when a crash interrupts it, `sweep` goes on, or deleting
        again. Raises UnknownRecord.
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            DELETE_HOME, slot, [slot.home(home_id), slot.homes, slot.deleted_homes], [home_id]
        )
        if answer[0] == "ok" or not await self._database.present(slot.deleted_homes, [home_id]):
            require_ok(answer, project=project_id, home=home_id)
        await self._sweep(slot, home_id)

    async def sweep(self, project_id: int) -> None:
        """Finish what a crash interrupted: members and devices of deleted homes."""
        slot = ProjectSlot(project_id)
        async for page in self._database.index_pages(slot.deleted_homes):
            for home_id in page:
                await self._sweep(slot, home_id)

    async def members(self, project_id: int, home_id: int) -> list[HomeMember]:
        """The members of a home, by user id."""
        slot, found = ProjectSlot(project_id), dict[int, HomeMember]()
        async for fields in self._member_pages(slot, home_id):
            found.update((member.user_id, member) for member in map(_member, *_pairs(fields)))
        if not await self._database.present(slot.homes, [home_id]):
            return []
        return [found[user_id] for user_id in sorted(found)]

    async def of_user(self, project_id: int, user_id: int) -> list[int]:
        """The ids of the homes that the user is a member of, ascending."""
        slot, found, after = ProjectSlot(project_id), list[int](), "-inf"
        while True:
            page, deleted = await self._database.read_beside(
                slot.deleted_homes,
                *("ZRANGEBYSCORE", slot.user_homes(user_id), after, "+inf", "LIMIT", 0, PAGE),
            )
            found += [home_id for home_id in map(int, page) if home_id not in deleted]
            if len(page) < PAGE:
                return found
            after = f"({int(page[-1])}"

    async def member_of(self, project_id: int, user_id: int, home_ids: Sequence[int]) -> set[int]:
        """Which of `home_ids` the user is a member of."""
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
        """Which of `home_ids` are homes of the project."""
        return await self._database.present(ProjectSlot(project_id).homes, home_ids)

    async def _member_pages(self, slot: ProjectSlot, home_id: int) -> AsyncIterator[dict[bytes, bytes]]:
        cursor = 0
        while True:
            name = slot.home_members(home_id)
            cursor, fields = await self._database.read("HSCAN", name, cursor, "COUNT", PAGE // 2)
            yield fields
            if int(cursor) == 0:
                return

    async def _sweep(self, slot: ProjectSlot, home_id: int) -> None:
        """Take members and devices out of a deleted home, which nobody can join or enter any more."""
        async for fields in self._member_pages(slot, home_id):
            users = [int(user_id) for user_id in fields]
            for start in range(0, len(users), MEMBERS_SWEPT):
                some = users[start : start + MEMBERS_SWEPT]
                names = [slot.home_members(home_id), *map(slot.user_homes, some)]
                require_ok(await self._database.change(EMPTY_HOME, slot, names, [home_id, *some]))
        await self._devices.leave_deleted_home(slot.project_id, home_id)
        await self._database.write("ZREM", slot.deleted_homes, home_id)


def _member(user_id: bytes, membership: bytes) -> HomeMember:
    role, since = membership.decode().split()
    return HomeMember(int(user_id), Role(role), int(since))


def _pairs(fields: dict[bytes, bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    return list(fields), list(fields.values())
