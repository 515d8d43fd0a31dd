"""Groups of users: what is granted to a group, everybody in it has.

Scripts of groups of users, and of what everybody in one may hear and do. See `script.py` for what they
answer, `permissions.py` for how rights are counted.

The members of a group are read before a script that touches all of them, and compared by it.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.errors import UnknownRecord
from homewire.groups.models import Group
from homewire.permissions import store as rights
from homewire.permissions.models import Permission
from homewire.permissions.store import COUNTING, ENDING
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import Script, changing, removing

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

    async def rights(self, project_id: int, group_id: int) -> builtins.list[Permission]:
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

    async def grant(self, project_id: int, group_id: int, right: Permission) -> None:
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

    async def revoke(self, project_id: int, group_id: int, right: Permission) -> None:
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
        raise retries_exhausted("group")

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
    return [slot.group(group_id), slot.group_rights(group_id), slot.group_members(group_id)]


def _record(project_id: int, group_id: int, record: Mapping[str, str]) -> Group:
    return Group(group_id, project_id, record["name"], int(record["created"]))


_SAME_MEMBERS: Final = """
-- Whether those who were read, ARGV from `first` on, are the members.
local function are_members(members, first)
  local count = #ARGV - first + 1
  if redis.call('ZCARD', members) ~= count then return false end
  if count == 0 then return true end
  for _, score in ipairs(redis.call('ZMSCORE', members, unpack(ARGV, first))) do
    if not score then return false end
  end
  return true
end
"""

CREATE_GROUP: Final = changing(
    """
-- KEYS: …, group, groups. ARGV: id, name, created
local over = charge('0', COST.group, 1)
if over then return over end
redis.call('HSET', KEYS[3], 'name', ARGV[2], 'created', ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[1])
return unannounced('group_created')
""",
    charges=True,
)

DELETE_GROUP: Final = removing(
    """
-- KEYS: …, group, groups, deleted groups. ARGV: id
-- From here on it gains no right and nobody enters it; what its members have from it is taken right by right.
if redis.call('UNLINK', KEYS[3]) == 0 then return {'unknown', 'group'} end
redis.call('ZREM', KEYS[4], ARGV[1])
release('0', COST.group, 1)
tombstone(KEYS[5], ARGV[1])
return unannounced('group_deleted')
""",
    charges=True,
    tombstones=True,
)

GRANT_TO_GROUP: Final = changing(
    f"""
-- KEYS: …, group, its rights and members, home or device that it is about (else the project), then the
--       rights of each member
-- ARGV: right, what it is about, most rights of a group, then the ids of the members
{COUNTING}
{_SAME_MEMBERS}
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'group'}} end
if redis.call('EXISTS', KEYS[6]) == 0 then return {{'unknown', ARGV[2]}} end
if not are_members(KEYS[5], 4) then return {{'moved'}} end
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {{'ok'}} end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[3]) then return {{'exceeded', 'group_rights'}} end
-- Some members may have it already; then less is counted.
local members = #KEYS - 6
local over = over_quota('0', (1 + members) * COST.right, 1 + members)
if over then return over end
redis.call('ZADD', KEYS[4], 0, ARGV[1])
local stored = 1
for i = 7, #KEYS do
  if gain(KEYS[i], ARGV[1]) then stored = stored + 1 end
end
book('0', stored * COST.right, stored)
return unannounced('right_granted')
""",
    charges=True,
)

REVOKE_FROM_GROUP: Final = removing(
    f"""
-- KEYS: …, group, its rights and members, places of devices, of entities, then the rights of each member
-- ARGV: right, then the ids of the members. Also of a deleted group.
{COUNTING}
{ENDING}
{_SAME_MEMBERS}
if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then
  return {{'unknown', redis.call('EXISTS', KEYS[3]) == 1 and 'permission' or 'group'}}
end
if not are_members(KEYS[5], 2) then return {{'moved'}} end
redis.call('ZREM', KEYS[4], ARGV[1])
local lost = {{}}
for i = 2, #ARGV do
  if lose(KEYS[6 + i], ARGV[1]) then table.insert(lost, ARGV[i]) end
end
release('0', (1 + #lost) * COST.right, 1 + #lost)
if #lost == 0 then return unannounced('right_revoked') end
return announce_end(ARGV[1], lost, KEYS[6], KEYS[7])
""",
    announces={RecordType.PERMISSION_ENDED},
    charges=True,
)

ENTER_GROUP: Final = changing(
    f"""
-- KEYS: …, group, its rights and members, user, groups and rights of the user
-- ARGV: group id, user id, most members of a group, most groups of a user
{COUNTING}
local user = redis.call('HMGET', KEYS[6], 'created', 'invited')
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'group'}} end
if not user[1] or user[2] == '1' then return {{'unknown', 'user'}} end
if redis.call('ZSCORE', KEYS[5], ARGV[2]) then return {{'ok'}} end
if redis.call('ZCARD', KEYS[5]) >= tonumber(ARGV[3]) then return {{'exceeded', 'group_members'}} end
if redis.call('ZCARD', KEYS[7]) >= tonumber(ARGV[4]) then return {{'exceeded', 'groups'}} end
local rights = redis.call('ZRANGE', KEYS[4], 0, -1)
local over = over_quota('0', COST.group_member + #rights * COST.right, 1 + #rights)
if over then return over end
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[2])
redis.call('ZADD', KEYS[7], ARGV[1], ARGV[1])
local stored = 0
for _, right in ipairs(rights) do
  if gain(KEYS[8], right) then stored = stored + 1 end
end
book('0', COST.group_member + stored * COST.right, 1 + stored)
return unannounced('group_entered')
""",
    charges=True,
)

QUIT_GROUP: Final = removing(
    f"""
-- KEYS: …, group, its rights and members, groups and rights of the user, places of devices, of entities
-- ARGV: group id, user id
{COUNTING}
{ENDING}
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'group'}} end
if redis.call('ZREM', KEYS[5], ARGV[2]) == 0 then return {{'unknown', 'member'}} end
redis.call('ZREM', KEYS[6], ARGV[1])
local lost = 0
for _, right in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  if lose(KEYS[7], right) then
    lost = lost + 1
    announce_end(right, {{ARGV[2]}}, KEYS[8], KEYS[9])
  end
end
release('0', COST.group_member + lost * COST.right, 1 + lost)
return unannounced('group_quit')
""",
    announces={RecordType.PERMISSION_ENDED},
    charges=True,
)

DISSOLVE_GROUP: Final = removing(
    f"""
-- KEYS: …, deleted groups, rights and members of the group, then the groups of each member
-- ARGV: group id, then the ids of the members. Of a deleted group that has no right any more.
{_SAME_MEMBERS}
if redis.call('EXISTS', KEYS[4]) == 1 or not are_members(KEYS[5], 2) then return {{'moved'}} end
local members = redis.call('ZCARD', KEYS[5])
release('0', members * COST.group_member, members)
for i = 6, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('UNLINK', KEYS[5])
redis.call('ZREM', KEYS[3], ARGV[1])
return unannounced('group_dissolved')
""",
    charges=True,
)

QUIT_ALL_GROUPS: Final = removing(
    """
-- KEYS: …, groups, grants and rights of the user, then the members of each group. ARGV: user id
-- Of a deleted user: everybody has heard of that already, and nobody grants them anything any more.
local groups, rights = 0, redis.call('ZCARD', KEYS[4]) + redis.call('HLEN', KEYS[5])
for i = 6, #KEYS do groups = groups + redis.call('ZREM', KEYS[i], ARGV[1]) end
release('0', groups * COST.group_member + rights * COST.right, groups + rights)
redis.call('UNLINK', KEYS[3], KEYS[4], KEYS[5])
return unannounced('groups_quit')
""",
    charges=True,
)
