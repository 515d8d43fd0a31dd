"""Entities: subjects of events other than devices. An entity is bound to one home for its lifetime.

`ProjectSlot.entity_places` has home, number of children and parent of each entity. All entities of a tree are
in one home.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from homewire.access_changes.records import RecordType
from homewire.errors import Conflict, InvalidInput, UnknownRecord
from homewire.store import checks
from homewire.store.database import ATTEMPTS, PAGE, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import changing, lua, reading, removing

MAX_DEPTH: Final = 100
"""Ancestors of an entity that one script visits."""

READ_ENTITIES: Final = reading(lua(__package__, "read_entities"))
CREATE_ENTITY: Final = changing(lua(__package__, "create_entity"), charges=True)
UPDATE_ENTITY: Final = changing(lua(__package__, "update_entity", MAX_DEPTH=MAX_DEPTH), charges=True)
DELETE_ENTITY: Final = removing(
    lua(__package__, "delete_entity"), announces={RecordType.ENTITY_MOVED}, charges=True
)
REMOVE_ENTITIES: Final = removing(lua(__package__, "remove_entities"))

MAX_REMOVED: Final = 250
"""Entities of a deleted home that one script removes. Each touches four of the 1,000 elements."""
MAX_READ: Final = 250
"""Entities that one script reads: place, home and record of each."""
MAX_BYTES_READ: Final = 128 * 1024
"""Bytes of records after which a script stops reading. A record has at most 64 KiB."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A subject of events in a home, other than a device (data models, *Entity*)."""

    id: str
    project_id: int
    home_id: int
    entity_class: str
    parent_id: str | None = None
    """Another entity of the same home."""
    time_zone: str | None = None
    display_name: str | None = None
    description: str | None = None
    attributes: bytes | None = None
    """A JSON object, with the bytes that the client sent."""
    created_ms: int = 0
    updated_ms: int = 0


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored JSON of an entity, without its place.

    An update compares its bytes with the record that was read. So fields with their defaults are omitted: a
    later version may add some.
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

    async def create(self, entity: Entity, max_entities: int) -> Entity:
        """Create an entity. A home has at most `max_entities`. `created_ms` and `updated_ms` are set here.

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
            [entity.id, entity.home_id, parent, _record(entity), max_entities],
        )  # fmt: skip
        if answer[0] == "full":
            raise Conflict("TOO_MANY_ENTITIES", f"the home may have at most {max_entities} entities")
        _require_parent(answer)
        require_ok(answer, project=entity.project_id, home=entity.home_id)
        return entity

    async def get(self, project_id: int, entity_id: str) -> Entity | None:
        """An entity; None for an unknown id, or if its home was deleted."""
        found = await self.some(project_id, [entity_id])
        return found[0] if found else None

    async def some(self, project_id: int, entity_ids: Sequence[str]) -> list[Entity]:
        """The entities of these ids that exist, in the order of `entity_ids`."""
        return [each async for page in self._read(project_id, entity_ids) for each in page]

    async def find(
        self,
        project_id: int,
        home_id: int | None = None,
        classes: Collection[str] = (),
        skip: int = 0,
        limit: int | None = None,
    ) -> tuple[list[Entity], int]:
        """At most `limit` entities of a home or (None) of the project, by id, without the first `skip`.

        With `classes` only entities of these classes. The second value is how many there are in all.
        """
        part = await self.part(project_id, home_id, classes, skip, limit)
        found = await part.whole()
        # The total of a whole list is the length of this answer, whatever changed while it was read.
        return found, skip + len(found) if limit is None and found else part.total

    async def part(
        self,
        project_id: int,
        home_id: int | None = None,
        classes: Collection[str] = (),
        skip: int = 0,
        limit: int | None = None,
    ) -> Part[Entity]:
        """The entities that `find` returns. Pages after the first are read on demand.

        With classes, and while a deleted home is being swept, all entities are read twice. Memory holds the
        ids of the answer and one page.
        """
        slot = ProjectSlot(project_id)
        index = slot.entity_ids if home_id is None else slot.home_entities(home_id)
        total, deleted = await self._database.read_beside(slot.deleted_homes, "ZCARD", index)
        if not classes and not deleted:
            return await Part.of(self._slice(project_id, index, skip, limit), skip, limit, int(total))
        end = None if limit is None else skip + limit
        found, total = list[str](), 0
        async for ids in self._id_pages(index, MAX_READ):
            async for page in self._read(project_id, ids):
                for entity in page:
                    if not classes or entity.entity_class in classes:
                        if total >= skip and (end is None or total < end):
                            found.append(entity.id)
                        total += 1
        return await Part.of(self._read(project_id, found), skip, limit, total)

    async def bindings(self, project_id: int, entity_ids: Collection[str]) -> dict[str, int]:
        """The home of each entity, without entities that are bound to none.

        One command reads 1,000 entities. There is no cache: a binding holds when its creation is answered.
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
        """Change fields of an entity, except home and id. Returns the new record.

        Raises InvalidInput, UnknownRecord, Conflict (CONFLICT: it was changed too often meanwhile).
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
        """Delete an entity. Its id is free then. Raises UnknownRecord, Conflict (ENTITY_HAS_CHILDREN)."""
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
            raise Conflict("ENTITY_HAS_CHILDREN", "delete the entities first that have it as their parent")
        require_ok(answer, project=project_id, entity=entity_id)

    async def leave_deleted_home(self, project_id: int, home_id: int) -> None:
        """Delete the entities of a deleted home, in pages. Can be repeated at any point."""
        slot = ProjectSlot(project_id)
        index = slot.home_entities(home_id)
        async for page in self._id_pages(index, MAX_REMOVED):
            names = [slot.entities, slot.entity_places, slot.entity_ids, index]
            require_ok(await self._database.change(REMOVE_ENTITIES, slot, names, page), project=project_id)

    async def _slice(
        self, project_id: int, index: str, skip: int, limit: int | None
    ) -> AsyncGenerator[list[Entity]]:
        """Pages of the entities of an index, from a rank on."""
        first = await self._database.read("ZRANGE", index, skip, skip)
        if not first:
            return
        found = 0
        async for ids in self._id_pages(index, MAX_READ, b"[" + first[0]):
            async for page in self._read(project_id, ids if limit is None else ids[: limit - found]):
                found += len(page)
                yield page
            if found == limit:
                return

    async def _read(self, project_id: int, entity_ids: Sequence[str]) -> AsyncGenerator[list[Entity]]:
        """Pages of the entities of these ids that exist, in the order of `entity_ids`."""
        slot, ids = ProjectSlot(project_id), [each.encode() for each in entity_ids if is_id(each)]
        while ids:
            page = ids[:MAX_READ]
            reply = await self._database.ask(
                READ_ENTITIES,
                [slot.entities, slot.entity_places, slot.deleted_homes],
                [MAX_BYTES_READ, *page],
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
    """Whether events and filters may name an entity so (`MAX_NAME_BYTES` of the core)."""
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
        "circle": "must not be the entity itself or one of its descendants",
        "deep": f"must not have more than {MAX_DEPTH} ancestors",
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
