"""The smart modules of the whole deployment, as a node remembers them.

What the webhooks of this node count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.webhooks.deliveries import ModuleName, named
from homewire.webhooks.models import SmartModule
from homewire.webhooks.store import EVERYTHING, SmartModules

RELOAD_S: Final = 30.0
"""Everything is read again so often, in case a crash kept a change from being counted."""
FORGET_S: Final = 60.0
"""A project without modules stays listed this long after its last change. A module's creation lists its
project first, and takes at most a few seconds from there."""


class ModuleRegistry:
    """Who wants which events. One look at a counter tells whether it is current."""

    def __init__(self, modules: SmartModules, clock: Clock = MACHINE_CLOCK) -> None:
        self._clock = clock
        self._modules = modules
        self._version = -1
        self._versions: dict[int, int] = {}
        self._seen_at: dict[int, float] = {}
        self._of_project: dict[int, list[SmartModule]] = {}
        self._by_name: dict[ModuleName, SmartModule] = {}
        self._reload_at = float("-inf")
        self._lock = asyncio.Lock()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_name)

    async def has_modules(self) -> None:
        """Wait until there is any module, as far as `refresh` was told."""
        await self._filled.wait()

    def get(self, name: ModuleName) -> SmartModule | None:
        """A module by project and id."""
        return self._by_name.get(name)

    def wanting(self, project: int, home: int, event_type: str, accepted_ms: int) -> Iterator[SmartModule]:
        """The modules that want an event, by the time (of Redis' clock) when it was accepted."""
        for module in self._of_project.get(project, ()):
            if event_type not in module.events and EVERYTHING not in module.events:
                continue
            if module.concerns(home) and accepted_ms >= module.since_ms:
                yield module

    async def refresh(self) -> None:
        """Be as new as the store was when this was called. Raises Unavailable."""
        async with self._lock:
            now = self._clock.monotonic()
            version = await self._modules.version()
            if version == self._version and now < self._reload_at:
                return
            versions = await self._modules.versions()
            everything = now >= self._reload_at
            for project in self._of_project.keys() - versions.keys():
                self._put(project, ())
            for project, changed in versions.items():
                if everything or self._versions.get(project) != changed:
                    self._put(project, await self._modules.list(project))
                if self._versions.get(project) != changed:
                    self._seen_at[project] = now
            self._versions, self._version = versions, version
            if self._by_name:
                self._filled.set()
            else:
                self._filled.clear()
            if everything:
                await self._forget_empty(now)
                self._reload_at = now + RELOAD_S

    def _put(self, project: int, modules: Iterable[SmartModule]) -> None:
        for gone in self._of_project.pop(project, ()):
            del self._by_name[named(gone)]
        kept = list(modules)
        if kept:
            self._of_project[project] = kept
            self._by_name.update((named(module), module) for module in kept)

    async def _forget_empty(self, now: float) -> None:
        for project, version in list(self._versions.items()):
            if project not in self._of_project and now - self._seen_at.get(project, now) > FORGET_S:
                await self._modules.forget(project, version)
        self._seen_at = {project: at for project, at in self._seen_at.items() if project in self._versions}


@dataclass(slots=True)
class WebhookStats:
    """Plain counters, read by the metrics page."""

    dispatched: int = 0
    delivered: int = 0
    failed: int = 0
    retried: int = 0
    dead_letters: int = 0
    missed: int = 0
    waiting: dict[ModuleName, int] = field(default_factory=dict)
    """Of the modules that this node delivers to, when it last looked."""

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        counts = asdict(self) | {"waiting": sum(self.waiting.values())}
        return {f"webhooks_{name}": count for name, count in counts.items()}
