"""Which rights users have, in projects with access by permission: granted to them, or by their groups.

Rights as texts, and which keys of the store a right is about.

Scripts of what users may hear and do in projects with access by permission. See `script.py` for what they
answer.

A permission is the text of a `Permission`. A user has it from a grant and from each group
that has it: `rights` counts these sources, and whoever loses the last one loses the right.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.entities.store import is_id
from homewire.errors import InvalidInput
from homewire.permissions.models import HeldPermission, Permission, PermissionKind
from homewire.store.database import PAGE, Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, removing

USER_GRANTS: Final = 400
"""Rights that are granted to one user themselves; with those of their groups there are some thousands."""
_OF_HOMES: Final = tuple(f"{kind}:" for kind in PermissionKind if kind.noun == "home")


class Permissions:
    """The rights of a project's users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, project_id: int, user_id: int, right: Permission) -> None:
        """Give a right to a user; once more changes nothing.

        Raises UnknownRecord (project, user, home, device), Conflict (TOO_MANY_PERMISSIONS).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            GRANT_TO_USER,
            slot,
            [
                slot.user(user_id), slot.user_grants(user_id), slot.user_rights(user_id),
                target(slot, right),
            ],
            [str(right), right.kind.noun, USER_GRANTS],
        )  # fmt: skip
        require_ok(answer, project=project_id, user=user_id, home=right.subject, device=right.subject)

    async def revoke(self, project_id: int, user_id: int, right: Permission) -> None:
        """Take a grant back; who has the right by a group, too, keeps it.

        Raises UnknownRecord (project; permission, for what was not granted to this user).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            REVOKE_FROM_USER,
            slot,
            [
                slot.user_grants(user_id), slot.user_rights(user_id),
                slot.device_places, slot.entity_places,
            ],
            [str(right), user_id],
        )  # fmt: skip
        require_ok(answer, project=project_id, permission=right)

    async def of_user(self, project_id: int, user_id: int) -> list[HeldPermission]:
        """The rights of a user by their texts, and where each is from."""
        slot = ProjectSlot(project_id)
        direct, groups = await asyncio.gather(
            self._database.read("ZRANGE", slot.user_grants(user_id), 0, -1),
            self._database.read("ZRANGE", slot.user_groups(user_id), 0, -1),
        )
        by_groups = await asyncio.gather(
            *(self._database.read("ZRANGE", slot.group_rights(int(each)), 0, -1) for each in groups)
        )
        sources: dict[bytes, list[int]] = {text: [] for text in direct}
        for group_id, texts in zip(groups, by_groups, strict=True):
            for text in texts:
                sources.setdefault(text, []).append(int(group_id))
        granted = frozenset(direct)
        return [
            HeldPermission(stored(text), text in granted, tuple(sources[text])) for text in sorted(sources)
        ]

    async def held(self, project_id: int, user_id: int, texts: Collection[str]) -> set[str]:
        """Those of these rights that the user has, to what still exists; of devices and entities ask where
        they are."""
        slot, wanted, found = ProjectSlot(project_id), sorted(set(texts)), set[str]()
        for start in range(0, len(wanted), PAGE):
            page = wanted[start : start + PAGE]
            reply = await self._database.read("HMGET", slot.user_rights(user_id), *page)
            found.update(text for text, sources in zip(page, reply, strict=True) if sources is not None)
        # Of a deleted home rights are left, until they are revoked or their holder goes.
        homes = {text: int(text.rpartition(":")[2]) for text in found if text.startswith(_OF_HOMES)}
        existing = await self._database.present(slot.homes, list(homes.values()))
        return found.difference(text for text, home_id in homes.items() if home_id not in existing)


_SPELLED: Final = ", ".join(f"{kind}:<id>" for kind in PermissionKind)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
"""Written as it is everywhere: of one right there is one text."""


def parsed(field: str, text: str) -> Permission:
    """The right that a text names. Raises InvalidInput, naming `field`."""
    for kind in PermissionKind:
        subject = text.removeprefix(f"{kind}:")
        if subject != text:
            return Permission(kind, _checked(field, kind.noun, subject))
    raise InvalidInput(field, f"must be one of {_SPELLED}")


def stored(text: bytes) -> Permission:
    """The same of a text that the store has."""
    action, kind, subject = text.decode().split(":", 2)
    return Permission(PermissionKind(f"{action}:{kind}"), subject)


def of_ids(kind: PermissionKind, ids: Iterable[int | str]) -> list[str]:
    """The same right for each of these homes, devices or entities, as texts."""
    return [f"{kind}:{each}" for each in ids]


def target(slot: ProjectSlot, right: Permission) -> str:
    """The key that exists as long as what a right is about.

    An entity need not be bound for somebody to hold a right to it: then it is the project's.
    """
    match right.kind.noun:
        case "home":
            return slot.home(int(right.subject))
        case "device":
            return slot.device(int(right.subject))
    return slot.project


def _checked(field: str, noun: str, subject: str) -> str:
    if noun == "entity":
        if not is_id(subject):
            raise InvalidInput(field, "must name an entity by 1 to 256 bytes of UTF-8")
    elif not _NUMBER.fullmatch(subject):
        raise InvalidInput(field, f"must name a {noun} by its id, in digits")
    return subject


COUNTING: Final = """
-- Whether it is new to them, and a record more.
local function gain(rights, right) return redis.call('HINCRBY', rights, right, 1) == 1 end
-- Whether that was the last source.
local function lose(rights, right)
  if redis.call('HINCRBY', rights, right, -1) > 0 then return false end
  redis.call('HDEL', rights, right)
  return true
end
"""

ENDING: Final = """
-- Everybody hears which users lost a right. `place` are the places of devices and of entities.
local function announce_end(right, users, device_place, entity_place)
  local action, kind, subject = string.match(right, '^(%a+):([%a-]+):(.*)$')
  local body = '{"users":[' .. table.concat(users, ',') .. ']'
  local about = {}
  if action == 'read' and kind == 'home-events' then
    about.home = subject
  elseif action == 'read' and kind == 'device' then
    about.device = subject
    about.home = string.match(redis.call('HGET', device_place, subject) or '', '^%d+')
  elseif action == 'read' and kind == 'entity-events' then
    about.home = string.match(redis.call('HGET', entity_place, subject) or '', '^%d+')
    body = body .. ',"entity":' .. cjson.encode(subject)
  end
  about.body = body .. '}'
  return announce('permission_ended', about)
end
"""

GRANT_TO_USER: Final = changing(
    f"""
-- KEYS: …, user, grants and rights of the user, home or device that it is about (else the project)
-- ARGV: right, what it is about, most grants of a user
{COUNTING}
local user = redis.call('HMGET', KEYS[3], 'created', 'invited')
if not user[1] or user[2] == '1' then return {{'unknown', 'user'}} end
if redis.call('EXISTS', KEYS[6]) == 0 then return {{'unknown', ARGV[2]}} end
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {{'ok'}} end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[3]) then return {{'exceeded', 'grants'}} end
local over = over_quota('0', 2 * COST.right, 2)
if over then return over end
redis.call('ZADD', KEYS[4], 0, ARGV[1])
local stored = gain(KEYS[5], ARGV[1]) and 2 or 1
book('0', stored * COST.right, stored)
return unannounced('right_granted')
""",
    charges=True,
)

REVOKE_FROM_USER: Final = removing(
    f"""
-- KEYS: …, grants and rights of the user, places of devices, of entities. ARGV: right, user id
{COUNTING}
{ENDING}
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return {{'unknown', 'permission'}} end
local is_lost = lose(KEYS[4], ARGV[1])
local freed = is_lost and 2 or 1
release('0', freed * COST.right, freed)
if not is_lost then return {{'ok'}} end
return announce_end(ARGV[1], {{ARGV[2]}}, KEYS[5], KEYS[6])
""",
    announces={RecordType.PERMISSION_ENDED},
    charges=True,
)
