"""Records of entities."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entity:
    """Something in a home that events are about and that is no device (data models, *Entity*)."""

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
    """A JSON object, byte for byte as it was given."""
    created_ms: int = 0
    updated_ms: int = 0
