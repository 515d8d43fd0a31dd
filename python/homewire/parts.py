"""The parts of a node that both tiers need: Redis, bus, relay, store, limits, and the core."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass

from redis.asyncio import Redis

from homewire import metrics
from homewire._core import Core
from homewire.access_changes.relay import Relay
from homewire.bus.append import Bus
from homewire.bus.retention import Retention
from homewire.bus.shards import BusSettings, ensure_epochs
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import in_background
from homewire.errors import ConfigurationError, Unavailable
from homewire.limits.connections import ConnectionLimits, ConnectionSharing
from homewire.limits.rates import Rates, RateSharing
from homewire.limits.sharing import SharedClock
from homewire.machine import memory_bytes
from homewire.presence.publisher import Reaper
from homewire.realtime.close_codes import GOING_AWAY, reason
from homewire.realtime.core_events import (
    WAITING_MESSAGES_BYTES,
    ClientMessages,
)
from homewire.redis.address import parse_address
from homewire.redis.checks import require_fit
from homewire.redis.connect import connect, translate_redis_errors
from homewire.redis.deployment import Identity
from homewire.redis.embedded import EmbeddedServer
from homewire.redis.servers import Connections
from homewire.repositories import Store
from homewire.server.limits import ServerLimits
from homewire.server.requests import BodyReader
from homewire.settings import Settings, redacted


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that both tiers use, and the stack that stops them in the reverse order."""

    stack: AsyncExitStack
    settings: Settings
    failed: asyncio.Future[Exception]
    clock: Clock
    url: str
    redis: Redis
    identity: Identity
    bus: Bus
    relay: Relay
    store: Store
    server_limits: ServerLimits
    reader: BodyReader
    metric_sources: list[metrics.MetricsSource]
    """Called at each scrape. Both tiers add sources."""


async def start_parts(stack: AsyncExitStack, settings: Settings, clock: Clock = MACHINE_CLOCK) -> Parts:
    """Start the parts on `stack`. Raises ConfigurationError."""
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    url = await _redis_url(stack, settings, failed)
    redis = connect(url)
    stack.push_async_callback(redis.aclose)
    identity = await _identity(settings, redis, url)
    servers = Connections.of(redis).servers
    in_background(stack, identity.watch(redis, servers.identity_keys, servers.disconnect), failed)
    bus = await _start_bus(stack, settings, redis, url, failed)
    relay = Relay(redis, settings.shards, clock)
    stack.push_async_callback(relay.close)
    in_background(stack, relay.run(), failed)
    store = Store.of(redis, relay, settings, clock)
    in_background(stack, store.housekeeping.run(), failed)
    in_background(stack, store.usage.watch(), failed)
    in_background(stack, Reaper(store, settings.presence_lease_s).run(), failed)
    server_limits = ServerLimits.of(settings, store.refusals, clock)
    reader = BodyReader(server_limits.bodies, silence=settings.body_timeout_s)
    metric_sources = [store.usage.metrics, *server_limits.metrics(), store.passwords.metrics]
    return Parts(
        stack,
        settings,
        failed,
        clock,
        url,
        redis,
        identity,
        bus,
        relay,
        store,
        server_limits,
        reader,
        metric_sources,
    )


async def _redis_url(stack: AsyncExitStack, settings: Settings, failed: asyncio.Future[Exception]) -> str:
    if settings.redis_url is not None:
        return settings.redis_url
    embedded = EmbeddedServer(
        settings.data_dir,
        settings.durability,
        settings.embedded_cluster,
        settings.redis_binary,
        settings.redis_memory_bytes,
    )
    await stack.enter_async_context(embedded)
    in_background(stack, embedded.supervise(), failed)
    return embedded.url


async def _identity(settings: Settings, redis: Redis, url: str) -> Identity:
    """The deployment of Redis, which judges each connection from now on. Raises ConfigurationError."""
    identity = Identity.of(settings)
    try:
        with translate_redis_errors():
            if settings.redis_url is not None:
                await require_fit(redis)
            await identity.establish(redis)
            await ensure_epochs(redis, settings.shards)
    except Unavailable as error:
        raise ConfigurationError(f"Redis at {redacted(url)} does not answer, or cannot serve now") from error
    servers = Connections.of(redis).servers
    servers.identity, servers.ack_replicas = identity, settings.ack_replicas
    return identity


async def _start_bus(
    stack: AsyncExitStack,
    settings: Settings,
    redis: Redis,
    url: str,
    failed: asyncio.Future[Exception],
) -> Bus:
    bus_settings = BusSettings.of(settings, url)
    bus = Bus(bus_settings, Connections.of(redis).servers)
    await bus.start()
    stack.push_async_callback(bus.close)
    in_background(stack, Retention(redis, bus_settings).run(), failed)
    return bus


class Limits:
    """The limits of a node that count over all nodes: `rates` of events, and `connections`."""

    def __init__(
        self,
        redis: Redis,
        core: Core,
        settings: Settings,
        refusals: Counter[str],
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        """`refusals` counts refusals by the setting of the limit."""
        shared = SharedClock(redis, clock)
        self.rates = Rates(settings, shared.now, refusals)
        self.connections = ConnectionLimits(core, settings, refusals, clock)
        self._rate_sharing = RateSharing(redis, self.rates, shared)
        self._connection_sharing = ConnectionSharing(redis, self.connections, shared)

    async def run(self) -> None:
        """Exchange counts with the other nodes until cancelled, then remove the counts of this node."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._rate_sharing.run())
                group.create_task(self._connection_sharing.run())
        finally:
            await self._connection_sharing.release()


def start_core(parts: Parts, client_messages: ClientMessages | None) -> Core:
    """Start the core, with its stream reader. Raises ConfigurationError."""
    settings = parts.settings
    core = Core(
        heartbeat_ms=to_ms(settings.heartbeat_s),
        reservation_ms=to_ms(settings.reservation_s),
        close_ms=to_ms(settings.close_s),
        shards=settings.shards,
        send_queue_bytes=settings.send_queue_bytes,
        message_bytes=settings.client_message_bytes,
        inbox_bytes=settings.inbox_bytes,
        deliver_messages=client_messages is not None,
        inbound_frames_per_s=settings.inbound_frames_per_s,
        inbound_bytes_per_s=settings.inbound_bytes_per_s,
        user_topic_bytes=settings.user_topic_bytes,
        send_queues_bytes=settings.send_queues_bytes or memory_bytes() // 4,
        unsent_age_ms=to_ms(settings.send_queue_age_s),
        messages_bytes=client_messages.waiting_bytes if client_messages else WAITING_MESSAGES_BYTES,
        socket_send_buffer_bytes=settings.socket_send_buffer_bytes,
        socket_unsent_bytes=settings.socket_unsent_bytes,
        socket_timeout_ms=to_ms(settings.socket_timeout_s),
    )
    # Stops the threads after a failed start. After an orderly stop it has no effect.
    parts.stack.callback(core.stop, GOING_AWAY, reason(GOING_AWAY), 0)
    try:
        core.start_tail(parse_address(parts.url))
    except (ConnectionError, ValueError) as error:
        raise ConfigurationError(f"the stream reader cannot read from Redis: {error}") from error
    return core


def to_ms(seconds: float) -> int:
    """Seconds as whole milliseconds."""
    return round(seconds * 1000)
