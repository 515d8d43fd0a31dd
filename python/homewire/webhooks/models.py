"""Records of webhooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ModuleType(StrEnum):
    """How a smart module is told of events."""

    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class SmartModule:
    """Something that is told of a project's events (spec 001, *Smart Modules*). One type: `webhook`.

    URL and key are sealed (`homewire.sealing`), and stand in no repr.
    """

    id: str
    project_id: int
    module_type: ModuleType
    description: str
    events: frozenset[str]
    """Event types, exactly as they are in events; `*`: all."""
    homes: frozenset[int] | None
    """None: every home of the project."""
    created_ms: int
    since_ms: int
    """By Redis' clock: events of before are not for it. Also tells it from an earlier one of its id."""
    suspended: bool
    sealed_url: str = field(repr=False)
    sealed_key: str = field(repr=False)
    broken_until_ms: int = 0
    """The circuit breaker is open until then; 0: it is closed."""
    sealed_old_key: str = field(default="", repr=False)
    """The key before this one, while both sign; empty: there is none."""
    old_key_until_ms: int = 0
    """It signs until then."""
    last_error: str = ""
    """Why its receiver last took nothing; empty: it took all."""
    last_error_ms: int = 0

    def concerns(self, home_id: int) -> bool:
        """Whether it belongs to this home of its project."""
        return self.homes is None or home_id in self.homes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery to a smart module that was given up."""

    id: str
    event_id: str
    reason: str
    tries: int
    envelope: bytes = field(repr=False)
