"""Records of smart modules (spec 001, *Smart Modules*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

ModuleName = tuple[int, str]
"""Project id and module id."""


class ModuleType(StrEnum):
    """How a smart module receives events."""

    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class SmartModule:
    """A receiver of a project's events, of one type: `webhook`.

    URL and key are sealed (`homewire.sealing`), and not in the repr.
    """

    id: str
    project_id: int
    module_type: ModuleType
    description: str
    events: frozenset[str]
    """Event types, as spelled in events; `*`: all."""
    homes: frozenset[int] | None
    """None: every home of the project."""
    created_ms: int
    since_ms: int
    """Its creation by Redis' clock: it gets later events only.

    Tells it from an earlier module with its id.
    """
    suspended: bool
    sealed_url: str = field(repr=False)
    sealed_key: str = field(repr=False)
    broken_until_ms: int = 0
    """Until when the circuit breaker is open; 0: it is closed."""
    sealed_old_key: str = field(default="", repr=False)
    """The key before this one, while deliveries are signed with both; else empty."""
    old_key_until_ms: int = 0
    """Until when deliveries are signed with the old key, too."""
    last_error: str = ""
    """The last error of its receiver; empty: none."""
    last_error_ms: int = 0

    @property
    def name(self) -> ModuleName:
        """The name of the module in the deployment."""
        return self.project_id, self.id

    def concerns(self, home_id: int) -> bool:
        """Whether it gets events of this home of its project."""
        return self.homes is None or home_id in self.homes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that failed for good."""

    id: str
    event_id: str
    reason: str
    tries: int
    envelope: bytes = field(repr=False)


@dataclass(slots=True)
class WebhookStats:
    """The counters of webhooks on this node."""

    dispatched: int = 0
    delivered: int = 0
    failed: int = 0
    retried: int = 0
    dead_letters: int = 0
    missed: int = 0
    waiting: dict[ModuleName, int] = field(default_factory=dict)
    """Waiting deliveries of the modules that this node delivers to, at the last check."""

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        counts = asdict(self) | {"waiting": sum(self.waiting.values())}
        return {f"webhooks_{name}": count for name, count in counts.items()}
