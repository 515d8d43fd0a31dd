"""Entities that are bound to a home: an event that names one has to be of that home.

The store is asked each time, for all entities of a body at once, so a binding holds from the moment
it was answered. Events without an entity cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgpack

from homewire.errors import InvalidInput
from homewire.http.authority import Directory

_HOME, _ENTITY = 2, 4
"""Places in the header of an event's envelope (`rust/core/src/envelope.rs`)."""
_ELSEWHERE: Final = "is bound to another home"

Placed = tuple[int, int, bytes]
"""An item's index in its body, its shard and its envelope."""


async def require_binding(directory: Directory, project_id: int, entity_id: str | None, home_id: int) -> None:
    """Raises InvalidInput if the entity is bound to another home. One that nobody bound is legal anywhere."""
    if entity_id is None:
        return
    bound = await directory.entity_homes(project_id, (entity_id,))
    if bound.get(entity_id, home_id) != home_id:
        raise misplaced()


async def misplaced_items(directory: Directory, project_id: int, placed: Sequence[Placed]) -> set[int]:
    """The indexes of those items whose entity is bound to another home. One look-up for all."""
    named = {index: named for index, _, envelope in placed if (named := _named(envelope)) is not None}
    bound: Mapping[str, int] = {}
    if named:
        bound = await directory.entity_homes(project_id, {entity_id for entity_id, _ in named.values()})
    return {index for index, (entity_id, home) in named.items() if bound.get(entity_id, home) != home}


def misplaced() -> InvalidInput:
    """Why such an event is refused."""
    return InvalidInput("entityId", _ELSEWHERE)


def _named(envelope: bytes) -> tuple[str, int] | None:
    """Entity and home of an event, if it names an entity."""
    header = msgpack.Unpacker(max_buffer_size=0)
    header.feed(envelope[1:])
    fields = header.unpack()
    return None if fields[_ENTITY] is None else (fields[_ENTITY], fields[_HOME])
