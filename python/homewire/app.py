"""The composition root: the only module that knows every room.

`running` starts a node and yields it; `serve` does that until a signal says stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from homewire import log, metrics
from homewire._core import Core
from homewire.api import documentation, health
from homewire.api.context import Api
from homewire.api.dispatch import routes as api_routes
from homewire.api.operations import ENDPOINTS, OPERATIONS
from homewire.bus import Bus, BusSettings, Retention, ensure_epochs
from homewire.bus.relay import Relay
from homewire.errors import ConfigurationError, CoreFailure
from homewire.gateway import server, websocket
from homewire.gateway.accept import Acceptor
from homewire.gateway.authenticate import Authenticator
from homewire.gateway.close_codes import GOING_AWAY, reason
from homewire.gateway.delivered import Delivered
from homewire.gateway.directory import Directory
from homewire.gateway.freshness import Freshness
from homewire.gateway.handoff import Observer
from homewire.gateway.handshakes import Handshakes
from homewire.gateway.heads import HeadWatch
from homewire.gateway.pump import Pumps
from homewire.gateway.skipped import report_skipped
from homewire.gateway.watch import CoreWatch, OnMessage
from homewire.http.bodies import Bodies
from homewire.http.reading import BodyReader
from homewire.ingest.context import Ingest
from homewire.ingest.routes import routes as ingest_routes
from homewire.limits import memory_bytes, raise_open_file_limit
from homewire.notify import pages
from homewire.notify.delivery import Delivery
from homewire.overload import Overload
from homewire.presence.holdings import Holdings
from homewire.presence.reaper import Reaper
from homewire.presence.speaker import Speaker
from homewire.redis.connect import connect, translate_redis_errors
from homewire.redis.embedded import EmbeddedServer
from homewire.settings import Settings
from homewire.store import Store
from homewire.store.kept_commands import Bounds
from homewire.tls import server_context
from homewire.webhooks.service import Webhooks

TAIL_SILENCE_MS = 3_000
"""The tail hears from Redis several times a second; after this it counts as cut off."""

Beside = Callable[[str], Coroutine[Any, Any, None]]
"""Something that runs beside a node, given the URL under which this machine reaches it."""


class Role(StrEnum):
    """What a process does; `homewire run` does both."""

    ROUTER = "router"
    API = "api"


@dataclass(frozen=True, slots=True)
class Node:
    """A running node."""

    base_url: str
    core: Core | None
    app: web.Application
    """What it serves over HTTP."""
    failed: asyncio.Future[Exception]
    """Set when the node can't go on."""


async def serve(settings: Settings, roles: frozenset[Role], beside: Beside | None = None) -> None:
    """Runs a node until SIGINT or SIGTERM. `beside` runs as long as the port is open.

    Raises ConfigurationError when it can't start, CoreFailure when it can't go on.
    """
    log.configure(settings.log_level, settings.log_format)
    raise_open_file_limit()
    stop = asyncio.Event()
    serving = asyncio.create_task(_serve(settings, roles, beside, stop))

    def give_up() -> None:
        stop.set()
        serving.cancel()

    # Until it serves, whatever it waits for is given up at once.
    _on_signals(give_up)
    try:
        await serving
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


async def _serve(
    settings: Settings, roles: frozenset[Role], beside: Beside | None, stop: asyncio.Event
) -> None:
    async with running(settings, roles) as node:
        _on_signals(stop.set)
        node.failed.add_done_callback(lambda _failure: stop.set())
        async with AsyncExitStack() as stack:
            if beside is not None:
                _in_background(stack, beside(node.base_url), node.failed)
            await stop.wait()
        if node.failed.done():
            raise node.failed.result()


def _on_signals(handler: Callable[[], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handler)


@asynccontextmanager
async def running(
    settings: Settings,
    roles: frozenset[Role],
    *,
    observe: Observer | None = None,
    on_message: OnMessage | None = None,
) -> AsyncIterator[Node]:
    """Starts the node's parts in the order of their needs, and stops them in the reverse order."""
    tls = server_context(settings)
    async with AsyncExitStack() as stack:
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        url = await _redis_url(stack, settings, failed)
        redis = connect(url)
        stack.push_async_callback(redis.aclose)
        bus = await _start_bus(stack, settings, redis, url, failed)
        relay = Relay(redis, settings.shards)
        _in_background(stack, relay.run(), failed)
        store = Store(redis, relay, homes_per_user=settings.homes_per_user)
        _in_background(stack, store.housekeeping.run(), failed)
        entrance = Entrance.of(settings)
        reader = BodyReader(entrance.bodies, silence=settings.body_timeout_s)
        app = web.Application(middlewares=[server.render_errors])
        holdings = Holdings()
        delivered = Delivered(store.kept_commands, holdings)
        _in_background(stack, Reaper(store, settings.presence_lease_s).run(), failed)
        core: Core | None = None
        refusals: Mapping[str, int] = {}
        figures = [*entrance.figures(), holdings.figures, delivered.figures]
        pumps = Pumps(settings.close_s)
        # Their last words still go out while the port is being closed.
        stack.push_async_callback(pumps.close)
        if Role.ROUTER in roles:
            core = _start_core(stack, settings, url, failed, on_message, (pumps, holdings, delivered))
            _in_background(stack, report_skipped(core), failed)
            speaker = Speaker(store, holdings, settings.presence_lease_s)
            # When the core has stopped, everything that was connected here is said to be so no more.
            stack.push_async_callback(speaker.close)
            _in_background(stack, speaker.run(), failed)
            stack.push_async_callback(delivered.close)
            _in_background(stack, delivered.run(), failed)
        freshness = Freshness(core, settings.shards)
        authenticator = Authenticator(store, freshness, settings.principal_cache_entries)
        directory = Directory(store, freshness, settings.principal_cache_entries)
        if core is not None:
            overload = Overload(redis, core, settings)
            _in_background(stack, overload.run(), failed)
            refusals = overload.refusals
            gateway = websocket.Gateway(
                core,
                authenticator,
                directory,
                freshness,
                overload.admission,
                pumps,
                store.kept_commands,
                observe,
            )
            ingest = Ingest(
                bus,
                authenticator,
                directory,
                overload.rates,
                reader=reader,
                shards=settings.shards,
                kept_commands=store.kept_commands,
                longest_kept_s=settings.kept_command_s,
                kept_bounds=Bounds(
                    settings.kept_commands, min(settings.kept_command_bytes, settings.outbox_bytes)
                ),
            )
            app.add_routes(entrance.handshakes.limited(websocket.routes(gateway)))
            app.add_routes(entrance.bodies.released(ingest_routes(ingest)))
        if Role.API in roles:
            delivery = Delivery.of(settings, redis, url, store.projects.get)
            _in_background(stack, delivery.run(), failed)
            figures.append(delivery.figures)
            api = Api(store, directory, authenticator, delivery.post, reader, settings)
            app.add_routes(entrance.bodies.released(api_routes(api, OPERATIONS)))
            app.add_routes(documentation.routes(ENDPOINTS))
            app.add_routes(pages.routes())
            webhooks = Webhooks(url, settings)
            _in_background(stack, webhooks.run(), failed)
            figures.append(webhooks.figures)
        registry = metrics.registry(core, bus, relay, refusals, figures)
        app.add_routes(health.routes(_problem(core, bus), registry))
        base_url = await _listen(stack, settings, app, entrance, tls)
        if core is not None:
            # Behind only the port: clients are told while everything else still stands.
            stack.push_async_callback(
                asyncio.to_thread, core.stop, GOING_AWAY, reason(GOING_AWAY), _ms(settings.close_s)
            )
        # Pushed last, so that nobody new comes to a node that goes.
        stack.push_async_callback(entrance.acceptor.close)
        yield Node(base_url, core, app, failed)


@dataclass(frozen=True, slots=True)
class Entrance:
    """What stands between the port and the handlers: each bounds something."""

    acceptor: Acceptor
    heads: HeadWatch
    handshakes: Handshakes
    bodies: Bodies

    @classmethod
    def of(cls, settings: Settings) -> Entrance:
        """As the settings have it."""
        return cls(
            Acceptor(settings.accepts_per_turn, settings.head_timeout_s),
            HeadWatch(settings.head_timeout_s),
            Handshakes(settings.handshakes, settings.handshake_queue, settings.handshake_wait_s),
            Bodies(settings.ingest_bytes),
        )

    def figures(self) -> list[metrics.Figures]:
        """For the metrics."""
        return [it.figures for it in (self.acceptor, self.heads, self.handshakes, self.bodies)]


async def _redis_url(stack: AsyncExitStack, settings: Settings, failed: asyncio.Future[Exception]) -> str:
    if settings.redis_url is not None:
        return settings.redis_url
    embedded = EmbeddedServer(
        settings.data_dir, settings.durability, settings.embedded_cluster, settings.redis_binary
    )
    await stack.enter_async_context(embedded)
    _in_background(stack, embedded.supervise(), failed)
    return embedded.url


async def _start_bus(
    stack: AsyncExitStack, settings: Settings, redis: Redis, url: str, failed: asyncio.Future[Exception]
) -> Bus:
    bus_settings = BusSettings.of(settings, url)
    with translate_redis_errors():
        await ensure_epochs(redis, settings.shards)
    bus = Bus(bus_settings)
    await bus.start()
    stack.push_async_callback(bus.close)
    _in_background(stack, Retention(redis, bus_settings).run(), failed)
    return bus


def _start_core(
    stack: AsyncExitStack,
    settings: Settings,
    url: str,
    failed: asyncio.Future[Exception],
    on_message: OnMessage | None,
    hearers: tuple[Pumps, Holdings, Delivered],
) -> Core:
    core = Core(
        heartbeat_ms=_ms(settings.heartbeat_s),
        reservation_ms=_ms(settings.reservation_s),
        close_ms=_ms(settings.close_s),
        shards=settings.shards,
        outbox_bytes=settings.outbox_bytes,
        message_bytes=settings.message_bytes,
        inbox_bytes=settings.inbox_bytes,
        deliver_messages=on_message is not None,
        outboxes_bytes=settings.outboxes_bytes or memory_bytes() // 4,
        unsent_age_ms=_ms(settings.unsent_age_s),
        messages_bytes=settings.messages_bytes,
        socket_send_buffer_bytes=settings.socket_send_buffer_bytes,
        socket_unsent_bytes=settings.socket_unsent_bytes,
        socket_timeout_ms=_ms(settings.socket_timeout_s),
    )
    # Of no effect after an orderly stop; otherwise the threads would outlive a failed start.
    stack.callback(core.stop, GOING_AWAY, reason(GOING_AWAY), 0)
    pumps, holdings, delivered = hearers

    def closed(connection_id: int) -> None:
        pumps.core_ended(connection_id)
        holdings.closed(connection_id)

    watch = CoreWatch(core, on_message, closed, holdings.adopted, delivered.written)
    stack.callback(watch.close)
    watch.failed.add_done_callback(lambda future: _pass_on(future, failed))
    try:
        core.start_tail(url)
    except (ConnectionError, ValueError) as error:
        raise ConfigurationError(f"the tail can't read from Redis: {error}") from error
    return core


def _problem(core: Core | None, bus: Bus) -> health.Problem:
    def problem() -> str | None:
        if not bus.connected:
            return "the bus is not connected to Redis"
        if core is not None and core.tail_silence_ms() > TAIL_SILENCE_MS:
            return "the tail has not heard from Redis"
        return None

    return problem


async def _listen(
    stack: AsyncExitStack,
    settings: Settings,
    app: web.Application,
    entrance: Entrance,
    tls: ssl.SSLContext | None,
) -> str:
    """Opens the port; the URL under which this machine reaches it."""
    acceptor, heads = entrance.acceptor, entrance.heads
    runner = await server.make_runner(app, request_line_bytes=settings.request_line_bytes, heads=heads)
    stack.callback(heads.close)
    stack.push_async_callback(app.cleanup)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(acceptor.close)
    try:
        port = await acceptor.bind(settings.host, settings.port, settings.backlog)
    except OSError as error:
        raise ConfigurationError(
            f"can't listen on {settings.host} port {settings.port}: {error.strerror}. Use --port."
        ) from error
    if runner.server is None:
        raise RuntimeError("aiohttp prepared no server")
    acceptor.start(runner.server, tls)
    return replace(settings, port=port).base_url


def _in_background(
    stack: AsyncExitStack, work: Coroutine[Any, Any, None], failed: asyncio.Future[Exception]
) -> None:
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: _task_ended(done, failed))
    stack.push_async_callback(_cancelled, task)


def _task_ended(task: asyncio.Task[None], failed: asyncio.Future[Exception]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception) and not failed.done():
        failed.set_result(error)


def _pass_on(source: asyncio.Future[CoreFailure], failed: asyncio.Future[Exception]) -> None:
    if not source.cancelled() and not failed.done():
        failed.set_result(source.result())


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
