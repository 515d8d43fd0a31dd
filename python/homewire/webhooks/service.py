"""Webhooks on one node: its picker, its couriers and what they share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Final

import structlog
from redis.exceptions import RedisError

from homewire.access_changes.relay import Relay
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import is_cancelling
from homewire.errors import ConfigurationError, Unavailable
from homewire.log import Seldom
from homewire.redis.connect import connect
from homewire.repositories import Store
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.webhooks.client import WebhookClient
from homewire.webhooks.dispatcher import Dispatcher
from homewire.webhooks.models import ModuleName, WebhookStats
from homewire.webhooks.store import ModuleRegistry
from homewire.webhooks.worker import DeliveryWorker, Dependencies

CHECK_S: Final = 1.0
"""Between two looks for modules that changed, and for what a dead node left."""
TIDY_S: Final = 30.0
WORKERS: Final = 1000
"""Modules that one node delivers to at once."""
CONNECTIONS: Final = 16
"""To Redis: of their own, so that no webhook keeps a request of the REST service waiting."""
LOG_S: Final = 60.0

_log = structlog.get_logger(__name__)


class WebhookService:
    """All that a node does for webhooks. Without any module: to ask Redis once a second for one."""

    def __init__(self, url: str, settings: Settings, clock: Clock = MACHINE_CLOCK) -> None:
        self._clock = clock
        self._url = url
        self._settings = settings
        self._stats = WebhookStats()
        self._workers: dict[ModuleName, DeliveryWorker] = {}
        self._tasks: dict[ModuleName, asyncio.Task[None]] = {}
        self._seldom = Seldom(LOG_S, clock)

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return self._stats.metrics()

    async def run(self) -> None:
        """Pick and deliver until cancelled."""
        settings = self._settings
        client = connect(self._url, max_connections=CONNECTIONS)
        reader = connect(self._url, max_connections=2)
        relay = Relay(client, settings.shards, self._clock)
        node = secrets.token_hex(8)
        try:
            async with WebhookClient(settings, self._clock) as poster:
                store = Store(client, relay, self._clock)
                registry = ModuleRegistry(store.smart_modules, self._clock)
                deps = Dependencies(
                    store, registry, poster, Sealer.of(settings), settings, self._stats, node, self._clock
                )

                def wake(name: ModuleName) -> None:
                    self._wake(name, deps)

                dispatcher = Dispatcher(reader, store, registry, wake, self._stats, node, settings)
                picking = asyncio.create_task(dispatcher.run())
                try:
                    await self._check(picking, deps)
                finally:
                    await _ended([picking, *self._tasks.values()])
        finally:
            await relay.close()
            await reader.aclose()
            await client.aclose()

    async def _check(self, picking: asyncio.Task[None], deps: Dependencies) -> None:
        tidy_at, cursor = 0.0, 0
        while not is_cancelling():
            if picking.done():
                # It stops for nothing but a fault of ours, which must not go unnoticed.
                picking.result()
            try:
                await deps.registry.refresh()
                now = self._clock.monotonic()
                if len(deps.registry) or now >= tidy_at:
                    # Without any module only to strike out what is noted of those that were.
                    tidy_at = now + TIDY_S
                    # Some at a time, all in turn: those that nothing can be delivered to stay noted.
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
        self._tasks[name] = asyncio.create_task(self._employ(name, deps))

    async def _employ(self, name: ModuleName, deps: Dependencies) -> None:
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
