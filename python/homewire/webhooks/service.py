"""The webhooks of a node: its dispatcher, its delivery workers, and what they share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from homewire.access_changes.relay import Relay
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import is_cancelling
from homewire.errors import ConfigurationError, Unavailable
from homewire.log import Seldom
from homewire.redis.connect import share
from homewire.repositories import Store
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.webhooks.client import WebhookClient
from homewire.webhooks.dispatcher import Dispatcher
from homewire.webhooks.models import ModuleName, WebhookStats
from homewire.webhooks.store import ModuleRegistry
from homewire.webhooks.worker import DeliveryWorker, Dependencies

CHECK_S: Final = 1.0
"""Interval of checks for changed modules, and for deliveries of stopped nodes."""
TIDY_S: Final = 30.0
"""Interval of removing deleted modules from the list of waiting modules, when no module exists."""
WORKERS: Final = 1000
"""Maximum modules that one node delivers to concurrently."""
LOG_S: Final = 60.0
"""Minimum time between two log lines about the same problem."""

_log = structlog.get_logger(__name__)


class WebhookService:
    """Dispatches events to smart modules and delivers them. Without modules it checks for one each second."""

    def __init__(self, redis: Redis, settings: Settings, clock: Clock = MACHINE_CLOCK) -> None:
        """`redis` is the node's client."""
        self._clock = clock
        self._redis = redis
        self._settings = settings
        self._stats = WebhookStats()
        self._workers: dict[ModuleName, DeliveryWorker] = {}
        self._tasks: dict[ModuleName, asyncio.Task[None]] = {}
        self._seldom = Seldom(LOG_S, clock)

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return self._stats.metrics()

    async def run(self) -> None:
        """Dispatch and deliver until cancelled."""
        settings = self._settings
        # Connections of their own, so that webhooks do not delay REST requests, nor reads that wait webhooks.
        redis, reader = share(self._redis), share(self._redis, max_connections=2)
        relay = Relay(redis, settings.shards, self._clock)
        node = secrets.token_hex(8)
        try:
            async with WebhookClient(settings, self._clock) as client:
                store = Store(redis, relay, self._clock)
                registry = ModuleRegistry(store.smart_modules, self._clock)
                deps = Dependencies(
                    store, registry, client, Sealer.of(settings), settings, self._stats, node, self._clock
                )

                def wake(name: ModuleName) -> None:
                    self._wake(name, deps)

                dispatcher = Dispatcher(reader, store, registry, wake, self._stats, node, settings)
                dispatching = asyncio.create_task(dispatcher.run())
                try:
                    await self._check(dispatching, deps)
                finally:
                    await _ended([dispatching, *self._tasks.values()])
        finally:
            await relay.close()
            await reader.aclose()
            await redis.aclose()

    async def _check(self, dispatching: asyncio.Task[None], deps: Dependencies) -> None:
        tidy_at, cursor = 0.0, 0
        while not is_cancelling():
            if dispatching.done():
                # The dispatcher ends only by a fault of homewire, which must stop the node.
                dispatching.result()
            try:
                await deps.registry.refresh()
                now = self._clock.monotonic()
                if len(deps.registry) or now >= tidy_at:
                    # Without modules only to remove deleted modules from the list.
                    tidy_at = now + TIDY_S
                    # A page at a time. A module that accepts no delivery stays in the list.
                    cursor, names = await deps.store.module_deliveries.waiting(cursor)
                    for name in names:
                        self._wake(name, deps)
            except (RedisError, OSError, Unavailable) as error:
                self._note("webhooks.failed", error)
            if not is_cancelling():
                await self._clock.sleep(CHECK_S)

    def _wake(self, name: ModuleName, deps: Dependencies) -> None:
        worker = self._workers.get(name)
        if worker is not None:
            worker.wake()
            return
        module = deps.registry.get(name)
        is_begun = name in self._tasks
        if is_begun or len(self._tasks) >= WORKERS or (module is not None and module.suspended):
            return
        self._tasks[name] = asyncio.create_task(self._run_worker(name, deps))

    async def _run_worker(self, name: ModuleName, deps: Dependencies) -> None:
        module = deps.registry.get(name)
        try:
            if module is not None:
                worker = self._workers[name] = DeliveryWorker(module, deps)
                if not await worker.run():
                    return
            await deps.store.module_deliveries.forget(name)
        except (RedisError, OSError, Unavailable, ConfigurationError) as error:
            self._note("webhooks.delivering_failed", error, project=name[0], module=name[1])
        finally:
            self._workers.pop(name, None)
            self._tasks.pop(name, None)

    def _note(self, event: str, error: Exception, **about: int | str) -> None:
        if self._seldom.may(event):
            _log.warning(event, error=str(error) or type(error).__name__, **about)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
