"""Records of groups."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """Users of a project who have rights together."""

    id: int
    project_id: int
    name: str
    created_ms: int
