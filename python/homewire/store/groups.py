"""Groups of users: what is granted to a group, everybody in it has."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from homewire.errors import UnknownRecord
from homewire.model import Group, Right
from homewire.store import checks, rights
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.scripts.groups import (
    CREATE_GROUP,
    DELETE_GROUP,
    DISSOLVE_GROUP,
    ENTER_GROUP,
    GRANT_TO_GROUP,
    QUIT_GROUP,
    REVOKE_FROM_GROUP,
)
from homewire.store.scripts.script import Script

GROUP_MEMBERS: Final = 300
"""A right that is revoked from a group touches three elements for each of its members, of 1,000."""
GROUP_RIGHTS: Final = 180
"""A user who leaves a group touches five elements for each of its rights."""
USER_GROUPS: Final = 20


class Groups:
    """The groups of a project's users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, name: str) -> Group:
        """A new group, without members and rights. Raises InvalidInput, UnknownRecord (project)."""
        checked, now = checks.name("name", name), self._database.now_ms()
        group = Group(await self._database.new_id(), project_id, checked, now)
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            CREATE_GROUP, slot, [slot.group(group.id), slot.groups], [group.id, group.name, group.created_ms]
        )
        require_ok(answer, project=project_id)
        return group

    async def get(self, project_id: int, group_id: int) -> Group:
        """A group. Raises UnknownRecord."""
        found = await self._read(project_id, [group_id])
        if not found:
            raise UnknownRecord("group", group_id)
        return found[0]

    async def list(
        self, project_id: int, skip: int = 0, limit: int | None = None
    ) -> tuple[builtins.list[Group], int]:
        """The groups by id, without the first `skip`, at most `limit`; and how many there are in all."""
        part = await self.part(project_id, skip, limit)
        return await part.whole(), part.total

    async def part(self, project_id: int, skip: int = 0, limit: int | None = None) -> Part[Group]:
        """The same, of which only the first page was read yet."""
        ids, total = await self._database.index_slice(ProjectSlot(project_id).groups, skip, limit)
        return await Part.by_ids(ids, skip, total, partial(self._read, project_id))

    async def delete(self, project_id: int, group_id: int) -> None:
        """Delete a group; what its members had by it alone, they have lost when this returns.

        When a crash interrupts it, housekeeping goes on, or deleting again. Raises UnknownRecord.
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            DELETE_GROUP, slot, [slot.group(group_id), slot.groups, slot.deleted_groups], [group_id]
        )
        if answer[0] == "ok" or not await self._database.present(slot.deleted_groups, [group_id]):
            require_ok(answer, project=project_id, group=group_id)
        await self._empty(slot, group_id)

    async def sweep(self, project_id: int) -> None:
        """Finish what a crash interrupted."""
        slot = ProjectSlot(project_id)
        async for page in self._database.index_pages(slot.deleted_groups):
            for group_id in page:
                await self._empty(slot, group_id)

    async def members(
        self, project_id: int, group_id: int, skip: int = 0, limit: int | None = None
    ) -> tuple[builtins.list[int], int]:
        """The ids of the users in a group, without the first `skip`, at most `limit`; and how many there
        are. Raises UnknownRecord."""
        await self.get(project_id, group_id)
        return await self._database.index_slice(ProjectSlot(project_id).group_members(group_id), skip, limit)

    async def rights(self, project_id: int, group_id: int) -> builtins.list[Right]:
        """What everybody in a group may do. Raises UnknownRecord."""
        await self.get(project_id, group_id)
        slot = ProjectSlot(project_id)
        return [
            rights.stored(text)
            for text in await self._database.read("ZRANGE", slot.group_rights(group_id), 0, -1)
        ]

    async def enter(self, project_id: int, group_id: int, user_id: int) -> None:
        """Put a user into a group; once more changes nothing.

        Raises UnknownRecord (project, group, user), Conflict (TOO_MANY_MEMBERS, TOO_MANY_GROUPS).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            ENTER_GROUP,
            slot,
            [
                *_group(slot, group_id), slot.user(user_id),
                slot.user_groups(user_id), slot.user_rights(user_id),
            ],
            [group_id, user_id, GROUP_MEMBERS, USER_GROUPS],
        )  # fmt: skip
        require_ok(answer, project=project_id, group=group_id, user=user_id)

    async def quit(self, project_id: int, group_id: int, user_id: int) -> None:
        """Take a user out of a group. Raises UnknownRecord (project, group; member: they are not in it)."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            QUIT_GROUP,
            slot,
            [
                *_group(slot, group_id), slot.user_groups(user_id), slot.user_rights(user_id),
                slot.device_places, slot.entity_places,
            ],
            [group_id, user_id],
        )  # fmt: skip
        require_ok(answer, project=project_id, group=group_id, member=user_id)

    async def grant(self, project_id: int, group_id: int, right: Right) -> None:
        """Give a right to everybody who is in a group, now and later; once more changes nothing.

        Raises UnknownRecord (project, group, home, device), Conflict (TOO_MANY_PERMISSIONS, CONFLICT).
        """
        slot = ProjectSlot(project_id)
        answer = await self._change_all(
            GRANT_TO_GROUP,
            slot,
            group_id,
            [*_group(slot, group_id), rights.target(slot, right)],
            [str(right), right.kind.noun, GROUP_RIGHTS],
        )
        require_ok(answer, project=project_id, group=group_id, home=right.subject, device=right.subject)

    async def revoke(self, project_id: int, group_id: int, right: Right) -> None:
        """Take a right from a group; who in it has it otherwise, too, keeps it.

        Raises UnknownRecord (project, group, permission), Conflict (CONFLICT).
        """
        slot = ProjectSlot(project_id)
        answer = await self._change_all(
            REVOKE_FROM_GROUP,
            slot,
            group_id,
            [*_group(slot, group_id), slot.device_places, slot.entity_places],
            [str(right)],
        )
        require_ok(answer, project=project_id, group=group_id, permission=right)

    async def _change_all(
        self,
        script: Script,
        slot: ProjectSlot,
        group_id: int,
        keys: Sequence[str],
        arguments: Sequence[str | int],
    ) -> builtins.list[str]:
        """Run a script over the rights of all who are in a group; read them again when they changed."""
        for _ in range(ATTEMPTS):
            members = await self._member_ids(slot, group_id)
            answer = await self._database.change(
                script, slot, [*keys, *map(slot.user_rights, members)], [*arguments, *members]
            )
            if answer[0] != "moved":
                return answer
        raise outrun("group")

    async def _empty(self, slot: ProjectSlot, group_id: int) -> None:
        """Take from the members of a deleted group what they have by it, then forget them."""
        for _ in range(ATTEMPTS):
            for text in await self._database.read("ZRANGE", slot.group_rights(group_id), 0, -1):
                try:
                    await self.revoke(slot.project_id, group_id, rights.stored(text))
                except UnknownRecord:
                    # Another node sweeps, too.
                    continue
            members = await self._member_ids(slot, group_id)
            answer = await self._database.change(
                DISSOLVE_GROUP,
                slot,
                [
                    slot.deleted_groups, slot.group_rights(group_id), slot.group_members(group_id),
                    *map(slot.user_groups, members),
                ],
                [group_id, *members],
            )  # fmt: skip
            if answer[0] != "moved":
                return require_ok(answer, project=slot.project_id)
        raise outrun("group")

    async def _member_ids(self, slot: ProjectSlot, group_id: int) -> builtins.list[int]:
        reply = await self._database.read("ZRANGE", slot.group_members(group_id), 0, -1)
        return [int(member) for member in reply]

    async def _read(self, project_id: int, group_ids: Sequence[int]) -> builtins.list[Group]:
        slot = ProjectSlot(project_id)
        records = await self._database.read_hashes(list(map(slot.group, group_ids)))
        return [
            _record(project_id, each, record)
            for each, record in zip(group_ids, records, strict=True)
            if record
        ]


def _group(slot: ProjectSlot, group_id: int) -> builtins.list[str]:
    return [slot.group(group_id), slot.group_rights(group_id), slot.group_members(group_id)]


def _record(project_id: int, group_id: int, record: Mapping[str, str]) -> Group:
    return Group(group_id, project_id, record["name"], int(record["created"]))
