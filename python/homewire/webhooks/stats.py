"""What the webhooks of this node count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from homewire.store.module_deliveries import ModuleName


@dataclass(slots=True)
class WebhookStats:
    """Plain counters, read by the metrics page."""

    picked: int = 0
    delivered: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    missed: int = 0
    waiting: dict[ModuleName, int] = field(default_factory=dict)
    """Of the modules that this node delivers to, when it last looked."""

    def figures(self) -> Mapping[str, int]:
        """For the metrics."""
        counts = asdict(self) | {"waiting": sum(self.waiting.values())}
        return {f"webhooks_{name}": count for name, count in counts.items()}
