"""Entities: what events are about and that is no device. Each is bound to one home for all its life.

Scripts of entities. See `script.py` for what they answer.

`places` has of each entity `<home id> <number of children> <id of its parent, or nothing>`; all of a tree
are in one home.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from homewire.access_changes.records import RecordType
from homewire.entities.models import Entity
from homewire.errors import Conflict, InvalidInput, UnknownRecord
from homewire.store import checks
from homewire.store.database import ATTEMPTS, PAGE, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import changing, reading, removing

ENTITIES_REMOVED: Final = 250
"""Entities of a deleted home that one script removes; each is in four places, of 1,000 elements."""
ENTITIES_READ: Final = 250
"""Entities that one script reads at most; it looks up place, home and record of each."""
BYTES_READ: Final = 128 * 1024
"""Of their records, which may have 64 KiB each; the last one may end behind that."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps of an entity beside its place.

    A change compares it byte for byte with what was read: a field that is added one day, and has its
    default, must not show.
    """

    entity_class: str
    created_ms: int
    updated_ms: int
    time_zone: str | None = None
    display_name: str | None = None
    description: str | None = None
    attributes: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Record).decode


class Entities:
    """The entities of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, entity: Entity, most: int) -> Entity:
        """A new entity; a home may have `most`. Its times are set here.

        Raises InvalidInput, UnknownRecord (home), Conflict (ENTITY_EXISTS, TOO_MANY_ENTITIES).
        """
        _check(entity)
        now = self._database.now_ms()
        entity = replace(entity, created_ms=now, updated_ms=now)
        slot, parent = ProjectSlot(entity.project_id), entity.parent_id or ""
        answer = await self._database.change(
            CREATE_ENTITY,
            slot,
            [
                slot.entities, slot.entity_places, slot.entity_ids,
                slot.home(entity.home_id), slot.home_entities(entity.home_id),
            ],
            [entity.id, entity.home_id, parent, _record(entity), most],
        )  # fmt: skip
        if answer[0] == "full":
            raise Conflict("TOO_MANY_ENTITIES", f"the home may have at most {most} entities")
        _require_parent(answer)
        require_ok(answer, project=entity.project_id, home=entity.home_id)
        return entity

    async def get(self, project_id: int, entity_id: str) -> Entity | None:
        """An entity, None if there is none of this id, or its home was deleted."""
        found = await self.some(project_id, [entity_id])
        return found[0] if found else None

    async def some(self, project_id: int, entity_ids: Sequence[str]) -> list[Entity]:
        """Those of `entity_ids` that exist, in this order."""
        return [each async for page in self._read(project_id, entity_ids) for each in page]

    async def find(
        self,
        project_id: int,
        home_id: int | None = None,
        classes: Collection[str] = (),
        skip: int = 0,
        limit: int | None = None,
    ) -> tuple[list[Entity], int]:
        """The entities of a home, or of the project, of these classes if there are any, by id; without the
        first `skip`, at most `limit`; and how many there are."""
        part = await self.part(project_id, home_id, classes, skip, limit)
        found = await part.whole()
        # Of a whole list as many as are in this answer, whatever changed while it was read.
        return found, skip + len(found) if limit is None and found else part.total

    async def part(
        self,
        project_id: int,
        home_id: int | None = None,
        classes: Collection[str] = (),
        skip: int = 0,
        limit: int | None = None,
    ) -> Part[Entity]:
        """The same, of which only the first page was read yet.

        With classes all are looked at, and while a deleted home is being swept. Either way no more is held
        than the ids of what is answered, and a page.
        """
        slot = ProjectSlot(project_id)
        index = slot.entity_ids if home_id is None else slot.home_entities(home_id)
        total, deleted = await self._database.read_beside(slot.deleted_homes, "ZCARD", index)
        if not classes and not deleted:
            return await Part.of(self._slice(project_id, index, skip, limit), skip, limit, int(total))
        end = None if limit is None else skip + limit
        found, total = list[str](), 0
        async for ids in self._id_pages(index, ENTITIES_READ):
            async for page in self._read(project_id, ids):
                for entity in page:
                    if not classes or entity.entity_class in classes:
                        if total >= skip and (end is None or total < end):
                            found.append(entity.id)
                        total += 1
        return await Part.of(self._read(project_id, found), skip, limit, total)

    async def bindings(self, project_id: int, entity_ids: Collection[str]) -> dict[str, int]:
        """The home that each of `entity_ids` is bound to; those that are bound to none are missing.

        One command for a thousand. Nothing is remembered: a binding holds from its answer on.
        """
        slot, ids, found = ProjectSlot(project_id), list(entity_ids), dict[str, int]()
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            places, deleted = await self._database.read_beside(
                slot.deleted_homes, "HMGET", slot.entity_places, *(each.encode() for each in page)
            )
            for entity_id, place in zip(page, places, strict=True):
                home_id = 0 if place is None else int(place.split(b" ", 1)[0])
                if home_id and home_id not in deleted:
                    found[entity_id] = home_id
        return found

    async def update(self, before: Entity, changes: Mapping[str, Any]) -> Entity:
        """Change fields of an entity, as it was read. Home and id stay.

        Raises InvalidInput, UnknownRecord, and Conflict if others changed it meanwhile.
        """
        slot = ProjectSlot(before.project_id)
        for _ in range(ATTEMPTS):
            after = replace(before, **changes, updated_ms=self._database.now_ms())
            _check(after)
            answer = await self._database.change(
                UPDATE_ENTITY,
                slot,
                [slot.entities, slot.entity_places],
                [
                    before.id, _record(before), _record(after),
                    before.parent_id or "", after.parent_id or "",
                ],
            )  # fmt: skip
            if answer[0] != "moved":
                _require_parent(answer)
                require_ok(answer, project=before.project_id)
                return after
            current = await self.get(before.project_id, before.id)
            if current is None:
                raise UnknownRecord("entity", before.id)
            before = current
        raise retries_exhausted("entity")

    async def delete(self, project_id: int, entity_id: str) -> None:
        """Delete an entity; its id is free then. Raises UnknownRecord, Conflict (ENTITY_HAS_CHILDREN)."""
        entity = await self.get(project_id, entity_id)
        if entity is None:
            raise UnknownRecord("entity", entity_id)
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            DELETE_ENTITY,
            slot,
            [slot.entities, slot.entity_places, slot.entity_ids, slot.home_entities(entity.home_id)],
            [entity_id, entity.home_id],
        )
        if answer[0] == "parent":
            raise Conflict("ENTITY_HAS_CHILDREN", "others have it as their parent; they go first")
        require_ok(answer, project=project_id, entity=entity_id)

    async def leave_deleted_home(self, project_id: int, home_id: int) -> None:
        """Delete the entities of a home whose tombstone stands. In pages; can be repeated at any point."""
        slot = ProjectSlot(project_id)
        index = slot.home_entities(home_id)
        async for page in self._id_pages(index, ENTITIES_REMOVED):
            names = [slot.entities, slot.entity_places, slot.entity_ids, index]
            require_ok(await self._database.change(REMOVE_ENTITIES, slot, names, page), project=project_id)

    async def _slice(
        self, project_id: int, index: str, skip: int, limit: int | None
    ) -> AsyncGenerator[list[Entity]]:
        """Pages of those of an index from a rank on."""
        first = await self._database.read("ZRANGE", index, skip, skip)
        if not first:
            return
        found = 0
        async for ids in self._id_pages(index, ENTITIES_READ, b"[" + first[0]):
            async for page in self._read(project_id, ids if limit is None else ids[: limit - found]):
                found += len(page)
                yield page
            if found == limit:
                return

    async def _read(self, project_id: int, entity_ids: Sequence[str]) -> AsyncGenerator[list[Entity]]:
        """Those of `entity_ids` that exist, in this order, as many at a time as one script reads."""
        slot, ids = ProjectSlot(project_id), [each.encode() for each in entity_ids if is_id(each)]
        while ids:
            page = ids[:ENTITIES_READ]
            reply = await self._database.ask(
                READ_ENTITIES,
                [slot.entities, slot.entity_places, slot.deleted_homes],
                [BYTES_READ, *page],
            )
            read = list(zip(page, reply[::2], reply[1::2], strict=False))
            if found := [_entity(project_id, *each) for each in read if each[2]]:
                yield found
            ids = ids[len(read) :]

    async def _id_pages(self, index: str, count: int, first: bytes = b"-") -> AsyncIterator[list[str]]:
        after = first
        while True:
            reply = await self._database.read("ZRANGEBYLEX", index, after, "+", "LIMIT", 0, count)
            if reply:
                yield [each.decode() for each in reply]
            if len(reply) < count:
                return
            after = b"(" + reply[-1]


def is_id(entity_id: str) -> bool:
    """Whether events and filters may name it (`MAX_NAME_BYTES` in `rust/core/src/input/mod.rs`)."""
    try:
        return 0 < len(entity_id.encode()) <= checks.MAX_NAME
    except UnicodeEncodeError:
        return False


def _check(entity: Entity) -> None:
    if not is_id(entity.id):
        raise InvalidInput("entityId", f"must be 1 to {checks.MAX_NAME} bytes of UTF-8")
    checks.name("entityClass", entity.entity_class)
    if entity.parent_id is not None and not is_id(entity.parent_id):
        raise InvalidInput("parentId", "must be the id of an entity")
    if entity.time_zone is not None:
        checks.timezone(entity.time_zone, "timeZone")
    if entity.display_name is not None:
        checks.name("displaySettings", entity.display_name)
    checks.text("displaySettings", entity.description or "")
    if entity.attributes is not None:
        if not entity.attributes.startswith(b"{"):
            raise InvalidInput("attributes", "must be an object")
        checks.json_value("attributes", entity.attributes)


def _require_parent(answer: Sequence[str]) -> None:
    problems = {
        "no_parent": "must be an entity of the same home",
        "circle": "must not be the entity itself, or below it",
        "deep": f"must not be below more than {DEEPEST} others",
    }
    if answer[0] in problems:
        raise InvalidInput("parentId", problems[answer[0]])


def _record(entity: Entity) -> bytes:
    return _encode(
        _Record(
            entity_class=entity.entity_class,
            created_ms=entity.created_ms,
            updated_ms=entity.updated_ms,
            time_zone=entity.time_zone,
            display_name=entity.display_name,
            description=entity.description,
            attributes=msgspec.UNSET if entity.attributes is None else msgspec.Raw(entity.attributes),
        )
    )


def _entity(project_id: int, entity_id: bytes, place: bytes, stored: bytes) -> Entity:
    home_id, _, parent_id = place.decode().split(" ", 2)
    record = _decode(stored)
    return Entity(
        entity_id.decode(), project_id, int(home_id), record.entity_class, parent_id or None,
        record.time_zone, record.display_name, record.description,
        None if isinstance(record.attributes, msgspec.UnsetType) else bytes(record.attributes),
        record.created_ms, record.updated_ms,
    )  # fmt: skip


DEEPEST: Final = 100
"""Ancestors that one script walks over."""

_TREE: Final = """
local function place_of(id)
  local text = redis.call('HGET', KEYS[4], id)
  if not text then return nil end
  return string.match(text, '^(%d+) (%d+) (.*)$')
end
local function put(id, home, children, parent)
  redis.call('HSET', KEYS[4], id, home .. ' ' .. children .. ' ' .. parent)
end
local function count_child(id, by)
  local home, children, parent = place_of(id)
  put(id, home, string.format('%d', children + by), parent)
end
"""

READ_ENTITIES: Final = reading("""
-- KEYS: entities, places, deleted homes. ARGV: how many bytes of records may be reached before no other is
--       answered, ids
-- Place and record of each; nothing for what does not exist, or whose home was deleted.
local most, bytes, answer = tonumber(ARGV[1]), 0, {}
for i = 2, #ARGV do
  if bytes >= most then break end
  local place, record = redis.call('HGET', KEYS[2], ARGV[i]) or '', ''
  if place ~= '' and not redis.call('ZSCORE', KEYS[3], string.match(place, '^%d+')) then
    record = redis.call('HGET', KEYS[1], ARGV[i]) or ''
  end
  answer[2 * i - 3], answer[2 * i - 2] = place, record
  bytes = bytes + #record
end
return answer
""")

CREATE_ENTITY: Final = changing(
    f"""
-- KEYS: …, entities, places, ids, home, ids of the home
-- ARGV: id, home id, parent or nothing, record, most entities of a home
{_TREE}
local id, home, parent = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[6]) == 0 then return {{'unknown', 'home'}} end
if redis.call('HEXISTS', KEYS[3], id) == 1 then return {{'taken', 'entity'}} end
if redis.call('ZCARD', KEYS[7]) >= tonumber(ARGV[5]) then return {{'full'}} end
if parent ~= '' and place_of(parent) ~= home then return {{'no_parent'}} end
local over = charge('h' .. home, COST.entity + #ARGV[4], 1)
if over then return over end
if parent ~= '' then count_child(parent, 1) end
redis.call('HSET', KEYS[3], id, ARGV[4])
put(id, home, '0', parent)
redis.call('ZADD', KEYS[5], 0, id)
redis.call('ZADD', KEYS[7], 0, id)
return unannounced('entity_created')
""",
    charges=True,
)

UPDATE_ENTITY: Final = changing(
    f"""
-- KEYS: …, entities, places. ARGV: id, record as it was read, new record, parent as read, new parent
{_TREE}
local id, before, after = ARGV[1], ARGV[4], ARGV[5]
local home, children, parent = place_of(id)
if redis.call('HGET', KEYS[3], id) ~= ARGV[2] or parent ~= before then return {{'moved'}} end
if after ~= before then
  local above, steps = after, 0
  while above ~= '' do
    if above == id then return {{'circle'}} end
    steps = steps + 1
    if steps > {DEEPEST} then return {{'deep'}} end
    local place, _, next = place_of(above)
    if place ~= home then return {{'no_parent'}} end
    above = next
  end
end
local over = charge('h' .. home, #ARGV[3] - #ARGV[2], 0)
if over then return over end
if after ~= before then
  if after ~= '' then count_child(after, 1) end
  if before ~= '' then count_child(before, -1) end
  put(id, home, children, after)
end
redis.call('HSET', KEYS[3], id, ARGV[3])
return unannounced('entity_updated')
""",
    charges=True,
)

DELETE_ENTITY: Final = removing(
    f"""
-- KEYS: …, entities, places, ids, ids of the home. ARGV: id, home id
{_TREE}
local id = ARGV[1]
local home, children, parent = place_of(id)
if home ~= ARGV[2] then return {{'unknown', 'entity'}} end
if children ~= '0' then return {{'parent'}} end
if parent ~= '' then count_child(parent, -1) end
release('h' .. home, COST.entity + redis.call('HSTRLEN', KEYS[3], id), 1)
redis.call('HDEL', KEYS[3], id)
redis.call('HDEL', KEYS[4], id)
redis.call('ZREM', KEYS[5], id)
redis.call('ZREM', KEYS[6], id)
return announce('entity_moved', {{home = home, body = id}})
""",
    announces={RecordType.ENTITY_MOVED},
    charges=True,
)

REMOVE_ENTITIES: Final = removing("""
-- KEYS: …, entities, places, ids, ids of a deleted home. ARGV: ids
-- Whole trees go with their home, so nobody counts their children any more.
redis.call('HDEL', KEYS[3], unpack(ARGV))
redis.call('HDEL', KEYS[4], unpack(ARGV))
redis.call('ZREM', KEYS[5], unpack(ARGV))
redis.call('ZREM', KEYS[6], unpack(ARGV))
return unannounced('entities_removed')
""")
