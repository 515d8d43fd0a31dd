"""Entities (data models, *Entity*): for servers, with a project key."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from homewire.auth.actions import Action
from homewire.entities.store import Entity as EntityRecord
from homewire.errors import InvalidInput, NotFound, UnknownRecord
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.decoding import WholeObject, changes
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.store.parts import Part
from homewire.timestamps import timestamp

Attributes = msgspec.Raw | msgspec.UnsetType
"""A JSON object, stored byte for byte; null: none."""


class EntityQuery(Paging):
    """The query of *List Entities*."""

    home_id: models.Id | None = None
    entity_classes: str | None = None
    """Only entities of one of these classes: separated by commas, or the parameter repeated."""


class NewEntity(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Create Entity*."""

    entity_id: str
    entity_class: str
    home_id: models.Id
    project_id: int | None = None
    """Must be the project of the path, if given."""
    parent_id: str | None = None
    time_zone: str | None = None
    display_settings: models.EntityDisplay | None = None
    attributes: Attributes = msgspec.UNSET


class EntityChanges(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Update Entity*; null removes a field. Other members are accepted if unchanged."""

    entity_class: str | msgspec.UnsetType = msgspec.UNSET
    parent_id: str | msgspec.UnsetType | None = msgspec.UNSET
    time_zone: str | msgspec.UnsetType | None = msgspec.UNSET
    display_settings: models.EntityDisplay | msgspec.UnsetType | None = msgspec.UNSET
    attributes: Attributes = msgspec.UNSET
    entity_id: str | msgspec.UnsetType = msgspec.UNSET
    home_id: int | msgspec.UnsetType = msgspec.UNSET
    project_id: int | msgspec.UnsetType = msgspec.UNSET
    created_at: str | msgspec.UnsetType = msgspec.UNSET
    updated_at: str | msgspec.UnsetType = msgspec.UNSET


MUTABLE: Final = ("entity_class", "parent_id", "time_zone", "display_settings", "attributes")


def to_response(entity: EntityRecord) -> models.Entity:
    """The Entity of a response."""
    display = None
    if entity.display_name is not None:
        display = models.EntityDisplay(name=entity.display_name, description=entity.description)
    return models.Entity(
        entity_id=entity.id,
        entity_class=entity.entity_class,
        home_id=entity.home_id,
        project_id=entity.project_id,
        created_at=timestamp(entity.created_ms),
        updated_at=timestamp(entity.updated_ms),
        parent_id=entity.parent_id,
        time_zone=entity.time_zone,
        display_settings=display,
        attributes=None if entity.attributes is None else msgspec.Raw(entity.attributes),
    )


async def list_entities(context: RestContext, call: Call[EntityQuery, None]) -> Part[models.Entity]:
    """List entities by id."""
    query = call.query
    given = call.request.query.getall("entityClasses", [])
    classes = {each for value in given for each in value.split(",") if each}
    part = await context.store.entities.part(call.project_id, query.home_id, classes, query.skip, query.limit)
    return part.map(to_response)


async def create_entity(context: RestContext, call: Call[NoQuery, NewEntity]) -> models.Entity:
    """Create an entity that is bound to a home."""
    body = call.body
    if body.project_id not in (None, call.project_id):
        raise InvalidInput("projectId", "must be the project of the path")
    display = body.display_settings
    entity = EntityRecord(
        body.entity_id,
        call.project_id,
        body.home_id,
        body.entity_class,
        body.parent_id,
        body.time_zone,
        display.name if display else None,
        display.description if display else None,
        _attributes(body.attributes),
    )
    try:
        return to_response(await context.store.entities.create(entity, context.settings.entities_per_home))
    except UnknownRecord:
        raise InvalidInput("homeId", "is no home of the project") from None


async def get_entity(context: RestContext, call: Call[NoQuery, None]) -> models.Entity:
    """Get an entity."""
    return to_response(await _entity(context, call))


async def update_entity(context: RestContext, call: Call[NoQuery, EntityChanges]) -> None:
    """Change fields of an entity. Its home and id cannot be changed."""
    entity = await _entity(context, call)
    wanted: dict[str, Any] = changes(call.body, to_response(entity), MUTABLE)
    if "display_settings" in wanted:
        display = wanted.pop("display_settings")
        wanted["display_name"] = display.name if display else None
        wanted["description"] = display.description if display else None
    if "attributes" in wanted:
        wanted["attributes"] = _attributes(wanted["attributes"])
    await context.store.entities.update(entity, wanted)


async def delete_entity(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Delete an entity. Its id can be bound to another home then."""
    await context.store.entities.delete(call.project_id, call.text("entityId"))


async def _entity(context: RestContext, call: Call[Any, Any]) -> EntityRecord:
    entity = await context.store.entities.get(call.project_id, call.text("entityId"))
    if entity is None:
        raise NotFound
    return entity


def _attributes(given: Attributes) -> bytes | None:
    if isinstance(given, msgspec.UnsetType) or bytes(given) == b"null":
        return None
    return bytes(given)


_ALL: Final = "/projects/{projectId}/entities"
_ONE: Final = _ALL + "/{entityId}"
_SOURCE: Final = "data models, Entity"
_READ: Final = Access(scope=KeyScope.READ)
_CHANGE: Final = Access(scope=KeyScope.ADMIN)

OPERATIONS: Final = (
    Operation(
        name="listEntities",
        method="GET",
        path=_ALL,
        tag="Entities",
        summary="List the entities of the project, or of a home",
        source=_SOURCE,
        access=_READ,
        action=Action.USE_PROJECT,
        handler=list_entities,
        query=EntityQuery,
        answer=list[models.Entity],
    ),
    Operation(
        name="createEntity",
        method="POST",
        path=_ALL,
        tag="Entities",
        summary="Create an entity, bound to a home",
        source=_SOURCE,
        access=_CHANGE,
        action=Action.USE_PROJECT,
        handler=create_entity,
        body=NewEntity,
        success=201,
        located="entity_id",
        answer=models.Entity,
    ),
    Operation(
        name="getEntity",
        method="GET",
        path=_ONE,
        tag="Entities",
        summary="Get an entity",
        source=_SOURCE,
        access=_READ,
        action=Action.USE_PROJECT,
        handler=get_entity,
        answer=models.Entity,
    ),
    Operation(
        name="updateEntity",
        method="PATCH",
        path=_ONE,
        tag="Entities",
        summary="Change an entity, except its home and id",
        source=_SOURCE,
        access=_CHANGE,
        action=Action.USE_PROJECT,
        handler=update_entity,
        body=EntityChanges,
        success=204,
    ),
    Operation(
        name="deleteEntity",
        method="DELETE",
        path=_ONE,
        tag="Entities",
        summary="Delete an entity without children",
        source=_SOURCE,
        access=_CHANGE,
        action=Action.USE_PROJECT,
        handler=delete_entity,
        success=204,
    ),
)
