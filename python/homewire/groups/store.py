"""Groups of users: all members of a group have its permissions.

A script that touches all members of a group gets the members that its caller read before, and compares them.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.errors import UnknownRecord
from homewire.permissions.models import Permission
from homewire.permissions.store import parse_stored, resource_key
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import Script, changing, lua, removing

CREATE_GROUP: Final = changing(lua(__package__, "create_group"), charges=True)
DELETE_GROUP: Final = removing(lua(__package__, "delete_group"), charges=True, tombstones=True)
GRANT_TO_GROUP: Final = changing(lua(__package__, "grant_to_group"), charges=True)
REVOKE_FROM_GROUP: Final = removing(
    lua(__package__, "revoke_from_group"), announces={RecordType.PERMISSION_ENDED}, charges=True
)
ENTER_GROUP: Final = changing(lua(__package__, "enter_group"), charges=True)
QUIT_GROUP: Final = removing(
    lua(__package__, "quit_group"), announces={RecordType.PERMISSION_ENDED}, charges=True
)
DISSOLVE_GROUP: Final = removing(lua(__package__, "dissolve_group"), charges=True)
QUIT_ALL_GROUPS: Final = removing(lua(__package__, "quit_all_groups"), charges=True)

MAX_GROUP_MEMBERS: Final = 300
"""To revoke a permission from a group touches three elements for each member, of 1,000."""
MAX_GROUP_PERMISSIONS: Final = 180
"""To remove a user from a group touches five elements for each of its permissions."""
MAX_USER_GROUPS: Final = 20


@dataclass(frozen=True, slots=True)
class Group:
    """Users of a project that have permissions together."""

    id: int
    project_id: int
    name: str
    created_ms: int


class Groups:
    """The groups of a project's users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, name: str) -> Group:
        """Create a group without members and permissions. Raises InvalidInput, UnknownRecord (project)."""
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
        """At most `limit` groups by id, without the first `skip`; and how many groups there are."""
        part = await self.part(project_id, skip, limit)
        return await part.whole(), part.total

    async def part(self, project_id: int, skip: int = 0, limit: int | None = None) -> Part[Group]:
        """The groups that `list` returns. Pages after the first are read on demand."""
        ids, total = await self._database.index_slice(ProjectSlot(project_id).groups, skip, limit)
        return await Part.by_ids(ids, skip, total, partial(self._read, project_id))

    async def delete(self, project_id: int, group_id: int) -> None:
        """Delete a group. Its members have lost its permissions when this returns.

        After a crash housekeeping finishes the deletion, or a second call. Raises UnknownRecord.
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            DELETE_GROUP, slot, [slot.group(group_id), slot.groups, slot.deleted_groups], [group_id]
        )
        if answer[0] == "ok" or not await self._database.present(slot.deleted_groups, [group_id]):
            require_ok(answer, project=project_id, group=group_id)
        await self._clean_up(slot, group_id)

    async def sweep(self, project_id: int) -> None:
        """Finish deletions that a crash interrupted."""
        slot = ProjectSlot(project_id)
        async for page in self._database.index_pages(slot.deleted_groups):
            for group_id in page:
                await self._clean_up(slot, group_id)

    async def members(
        self, project_id: int, group_id: int, skip: int = 0, limit: int | None = None
    ) -> tuple[builtins.list[int], int]:
        """At most `limit` ids of a group's members, without the first `skip`; and how many members it has.

        Raises UnknownRecord.
        """
        await self.get(project_id, group_id)
        return await self._database.index_slice(ProjectSlot(project_id).group_members(group_id), skip, limit)

    async def permissions(self, project_id: int, group_id: int) -> builtins.list[Permission]:
        """The permissions of a group. Raises UnknownRecord."""
        await self.get(project_id, group_id)
        slot = ProjectSlot(project_id)
        return [
            parse_stored(text)
            for text in await self._database.read("ZRANGE", slot.group_permissions(group_id), 0, -1)
        ]

    async def enter(self, project_id: int, group_id: int, user_id: int) -> None:
        """Add a user to a group. Without effect for a member.

        Raises UnknownRecord (project, group, user), Conflict (TOO_MANY_MEMBERS, TOO_MANY_GROUPS).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            ENTER_GROUP,
            slot,
            [
                *_group(slot, group_id), slot.user(user_id),
                slot.user_groups(user_id), slot.user_permissions(user_id),
            ],
            [group_id, user_id, MAX_GROUP_MEMBERS, MAX_USER_GROUPS],
        )  # fmt: skip
        require_ok(answer, project=project_id, group=group_id, user=user_id)

    async def quit(self, project_id: int, group_id: int, user_id: int) -> None:
        """Remove a user from a group. Raises UnknownRecord (project, group, member)."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            QUIT_GROUP,
            slot,
            [
                *_group(slot, group_id), slot.user_groups(user_id), slot.user_permissions(user_id),
                slot.device_places, slot.entity_places,
            ],
            [group_id, user_id],
        )  # fmt: skip
        require_ok(answer, project=project_id, group=group_id, member=user_id)

    async def grant(self, project_id: int, group_id: int, permission: Permission) -> None:
        """Grant a permission to all present and future members. Without effect if granted before.

        Raises UnknownRecord (project, group, home, device), Conflict (TOO_MANY_PERMISSIONS, CONFLICT).
        """
        slot = ProjectSlot(project_id)
        answer = await self._change_all(
            GRANT_TO_GROUP,
            slot,
            group_id,
            [*_group(slot, group_id), resource_key(slot, permission)],
            [str(permission), permission.kind.noun, MAX_GROUP_PERMISSIONS],
        )
        require_ok(
            answer, project=project_id, group=group_id, home=permission.subject, device=permission.subject
        )

    async def revoke(self, project_id: int, group_id: int, permission: Permission) -> None:
        """Revoke a permission from a group. Members keep it if they have it from another source.

        Raises UnknownRecord (project, group, permission), Conflict (CONFLICT).
        """
        slot = ProjectSlot(project_id)
        answer = await self._change_all(
            REVOKE_FROM_GROUP,
            slot,
            group_id,
            [*_group(slot, group_id), slot.device_places, slot.entity_places],
            [str(permission)],
        )
        require_ok(answer, project=project_id, group=group_id, permission=permission)

    async def _change_all(
        self,
        script: Script,
        slot: ProjectSlot,
        group_id: int,
        keys: Sequence[str],
        arguments: Sequence[str | int],
    ) -> builtins.list[str]:
        """Run a script on the permissions of all members; read the members again when they changed."""
        for _ in range(ATTEMPTS):
            members = await self._member_ids(slot, group_id)
            answer = await self._database.change(
                script, slot, [*keys, *map(slot.user_permissions, members)], [*arguments, *members]
            )
            if answer[0] != "moved":
                return answer
        raise retries_exhausted("group")

    async def _clean_up(self, slot: ProjectSlot, group_id: int) -> None:
        """Revoke the permissions of a deleted group, then remove its members."""
        for _ in range(ATTEMPTS):
            for text in await self._database.read("ZRANGE", slot.group_permissions(group_id), 0, -1):
                try:
                    await self.revoke(slot.project_id, group_id, parse_stored(text))
                except UnknownRecord:
                    # Another node swept it.
                    continue
            members = await self._member_ids(slot, group_id)
            answer = await self._database.change(
                DISSOLVE_GROUP,
                slot,
                [
                    slot.deleted_groups, slot.group_permissions(group_id), slot.group_members(group_id),
                    *map(slot.user_groups, members),
                ],
                [group_id, *members],
            )  # fmt: skip
            if answer[0] != "moved":
                return require_ok(answer, project=slot.project_id)
        raise retries_exhausted("group")

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
    return [slot.group(group_id), slot.group_permissions(group_id), slot.group_members(group_id)]


def _record(project_id: int, group_id: int, record: Mapping[str, str]) -> Group:
    return Group(group_id, project_id, record["name"], int(record["created"]))
