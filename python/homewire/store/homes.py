"""Homes and who is a member of them. Membership is kept on both sides, in one step."""

from __future__ import annotations

from collections.abc import Sequence

from homewire.model import Home, HomeMember, Role
from homewire.store import checks
from homewire.store.database import PAGE, Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts import ADD_MEMBER, CREATE_HOME, REMOVE_MEMBER


class Homes:
    """The homes of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, name: str, owner_user_id: int) -> Home:
        """A new home with its first owner. Raises UnknownRecord without the project or the user."""
        checks.name("name", name)
        home = Home(await self._database.new_id(), project_id, name, self._database.now_ms())
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            CREATE_HOME,
            [
                slot.project, slot.outbox, slot.home(home.id), slot.homes, slot.home_members(home.id),
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
            [
                slot.project, slot.outbox, slot.home(home_id), slot.home_members(home_id),
                slot.user(user_id), slot.user_homes(user_id),
            ],
            [home_id, user_id, member.role.value, member.since_ms],
        )  # fmt: skip
        require_ok(answer, project=project_id, home=home_id, user=user_id)
        return member

    async def remove_member(
        self, project_id: int, home_id: int, user_id: int, *, even_last_owner: bool = False
    ) -> None:
        """End a membership. Raises UnknownRecord, and Conflict (LAST_OWNER) unless `even_last_owner`."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            REMOVE_MEMBER,
            [
                slot.project,
                slot.outbox,
                slot.home(home_id),
                slot.home_members(home_id),
                slot.user_homes(user_id),
            ],
            [home_id, user_id, int(even_last_owner)],
        )
        require_ok(answer, project=project_id, member=user_id)

    async def members(self, project_id: int, home_id: int) -> list[HomeMember]:
        """The members of a home, by user id."""
        found: dict[int, HomeMember] = {}
        cursor = 0
        while True:
            name = ProjectSlot(project_id).home_members(home_id)
            cursor, fields = await self._database.read("HSCAN", name, cursor, "COUNT", PAGE // 2)
            found.update((member.user_id, member) for member in map(_member, *_pairs(fields)))
            if int(cursor) == 0:
                return [found[user_id] for user_id in sorted(found)]

    async def of_user(self, project_id: int, user_id: int) -> list[int]:
        """The ids of the homes that the user is a member of, ascending."""
        index = ProjectSlot(project_id).user_homes(user_id)
        return [home_id async for page in self._database.index_pages(index) for home_id in page]

    async def member_of(self, project_id: int, user_id: int, home_ids: Sequence[int]) -> set[int]:
        """Which of `home_ids` the user is a member of."""
        return await self._database.present(ProjectSlot(project_id).user_homes(user_id), home_ids)

    async def existing(self, project_id: int, home_ids: Sequence[int]) -> set[int]:
        """Which of `home_ids` are homes of the project."""
        return await self._database.present(ProjectSlot(project_id).homes, home_ids)


def _member(user_id: bytes, membership: bytes) -> HomeMember:
    role, since = membership.decode().split()
    return HomeMember(int(user_id), Role(role), int(since))


def _pairs(fields: dict[bytes, bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    return list(fields), list(fields.values())
