"""The composition root: the only module that knows every room.

`running` starts a node and yields it; `serve` does that until a signal says stop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

import structlog
from aiohttp import web

from homewire import log, metrics
from homewire._core import Core
from homewire.audit import Audit
from homewire.auth.authenticator import Authenticator
from homewire.auth.cache import CacheVersions
from homewire.auth.home_directory import HomeDirectory
from homewire.bus.append import Bus
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import in_background
from homewire.errors import CoreFailure
from homewire.events.api import routes as ingest_routes
from homewire.events.context import Ingest
from homewire.events.queued_commands import QueueBounds
from homewire.hosts import listed_origins
from homewire.limits.limits import Limits
from homewire.limits.rates import Rates
from homewire.machine import collect_seldom, raise_open_file_limit
from homewire.messages import pages
from homewire.messages.service import MessageService
from homewire.node_address import noted
from homewire.openapi import page as documentation
from homewire.operations import ENDPOINTS, OPERATIONS
from homewire.parts import Parts, start_core, start_parts, to_ms
from homewire.presence.publisher import PresencePublisher
from homewire.realtime import handshake as websocket
from homewire.realtime.close_codes import GOING_AWAY, reason
from homewire.realtime.core_events import (
    ClientMessages,
    CoreEventDispatcher,
    CoreEventHandlers,
    report_skipped,
)
from homewire.realtime.handoff import Observer
from homewire.rest import shapes
from homewire.rest.context import Api, SortSlots
from homewire.rest.dispatch import routes as api_routes
from homewire.server import http as server
from homewire.server.ports import (
    Certificate,
    Problem,
    admin_routes,
    open_admin_port,
    open_port,
    public_routes,
)
from homewire.sessions.expiry import SessionExpiry
from homewire.settings import Settings, contradictions, in_environment
from homewire.tls import server_context
from homewire.webhooks.service import WebhookService

_log = structlog.get_logger(__name__)

TAIL_SILENCE_MS = 3_000
"""The stream reader gets a reply of Redis several times a second; then it counts as disconnected."""

SWITCH_S: Final = 0.000_5
"""How long a thread that sorts or hashes may keep the interpreter from the event loop, in s; Python's default
is 5 ms, at each of the loop's turns."""


class Tier(StrEnum):
    """What a process does; `homewire run` does both."""

    ROUTER = "router"
    API = "api"


@dataclass(frozen=True, slots=True)
class Node:
    """A running node."""

    base_url: str
    admin_url: str
    reload: Callable[[], None]
    """Loads the certificate again."""
    core: Core
    app: web.Application
    """What it serves over HTTP."""
    failed: asyncio.Future[Exception]
    """Set when the node can't go on."""


BackgroundWork = Callable[[Node], Coroutine[Any, Any, None]]
"""Work that runs while a node serves."""


async def serve(settings: Settings, tiers: frozenset[Tier], background: BackgroundWork | None = None) -> None:
    """Runs a node until SIGINT or SIGTERM. `background` runs as long as the port is open.

    Raises ConfigurationError when it can't start, CoreFailure when it can't go on.
    """
    log.configure(settings.log_level, settings.log_format)
    _log_ignored_variables()
    for problem, advice in contradictions(settings):
        _log.warning("settings.contradiction", problem=problem, advice=advice)
    raise_open_file_limit()
    stop = asyncio.Event()
    serving = asyncio.create_task(_serve(settings, tiers, background, stop))

    def give_up() -> None:
        stop.set()
        serving.cancel()

    # Until it serves, whatever it waits for is given up at once.
    _on_signals(give_up)
    # What a closed terminal and `systemctl reload` send: by default it would end the process.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _log.info, "reload.too_early")
    try:
        await serving
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


def _log_ignored_variables() -> None:
    """Log the HOMEWIRE_ variables that are no settings."""
    found = in_environment()
    if found.injected:
        _log.info(
            "settings.ignored", variables=list(found.injected), reason="made by Kubernetes for a Service"
        )
    for warning in found.warnings():
        _log.warning("settings.unknown", problem=warning)


async def _serve(
    settings: Settings, tiers: frozenset[Tier], background: BackgroundWork | None, stop: asyncio.Event
) -> None:
    async with running(settings, tiers) as node:
        _on_signals(stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, node.reload)
        node.failed.add_done_callback(lambda _failure: stop.set())
        collect_seldom()
        async with AsyncExitStack() as stack:
            if background is not None:
                in_background(stack, background(node), node.failed)
            await stop.wait()
        if node.failed.done():
            raise node.failed.result()


def _on_signals(handler: Callable[[], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handler)


@asynccontextmanager
async def running(
    settings: Settings,
    tiers: frozenset[Tier],
    *,
    observe: Observer | None = None,
    client_messages: ClientMessages | None = None,
    clock: Clock = MACHINE_CLOCK,
) -> AsyncIterator[Node]:
    """Starts the node's parts in the order of their needs, and stops them in the reverse order. All get their
    time from `clock`."""
    tls = server_context(settings)
    sys.setswitchinterval(SWITCH_S)
    async with AsyncExitStack() as stack:
        parts = await start_parts(stack, settings, clock)
        core_event_handlers = CoreEventHandlers.of(settings, parts.store.queued_commands, clock)
        # Their last words still go out while the port is being closed.
        stack.push_async_callback(core_event_handlers.tls_bridges.close)
        # The REST tier has one, too: its tail tells what remembered keys and memberships are worth.
        core = start_core(parts, client_messages)
        # Both tiers send events.
        overload = Limits(parts.redis, core, settings, parts.store.refusals, clock)
        _dispatch_core_events(parts, core, client_messages, core_event_handlers, overload)
        in_background(stack, overload.run(), parts.failed)
        in_background(stack, report_skipped(core), parts.failed)
        session_expiry = _start_lifetimes(parts, core, core_event_handlers)
        caches = Caches.of(parts, core, session_expiry)
        audit = Audit(clock)
        app = web.Application(
            middlewares=[server.render_errors(audit.render, parts.server_limits.rates.request)]
        )
        if Tier.ROUTER in tiers:
            _add_realtime_tier(app, parts, core, caches, core_event_handlers, overload, observe)
        if Tier.API in tiers:
            _add_rest_tier(app, parts, caches, audit, overload.rates)
        labelled = {
            "refused": parts.store.refusals,
            "quota_refused": parts.store.usage.refusals,
            "logins": audit.logins,
            "refusals": audit.refusals,
        }
        registry = metrics.registry(
            core,
            parts.bus,
            parts.relay,
            labelled,
            parts.metric_sources,
        )
        problem = _problem(core, parts.bus)
        app.add_routes(parts.server_limits.turns.limited(public_routes(problem)))
        admin = web.Application(middlewares=[server.render_errors(shapes.rendered)])
        admin.add_routes(admin_routes(problem, registry))
        stack.callback(parts.server_limits.header_timeout.close)
        admin_url = await open_admin_port(stack, settings, admin, parts.server_limits)
        base_url = await open_port(stack, settings, app, parts.server_limits, tls)
        certificate = Certificate(settings, parts.server_limits.acceptor)
        if tls is not None:
            in_background(stack, certificate.watch(), parts.failed)
        # Behind only the port: clients are told while everything else still stands.
        stack.push_async_callback(
            asyncio.to_thread, core.stop, GOING_AWAY, reason(GOING_AWAY), to_ms(settings.close_s)
        )
        # Pushed last, so that nobody new comes to a node that goes.
        stack.push_async_callback(parts.server_limits.acceptor.close)
        stack.enter_context(noted(settings.data_dir, base_url))
        yield Node(base_url, admin_url, certificate.reload, core, app, parts.failed)


@dataclass(frozen=True, slots=True)
class Caches:
    """What a node remembers of the store, and how it knows that it still may."""

    cache_versions: CacheVersions
    session_expiry: SessionExpiry
    authenticator: Authenticator
    directory: HomeDirectory

    @classmethod
    def of(cls, parts: Parts, core: Core, session_expiry: SessionExpiry) -> Caches:
        """Nothing yet."""
        entries, cache_versions = (
            parts.settings.principal_cache_entries,
            CacheVersions(core, parts.settings.shards),
        )
        # What was changed here is so from its answer on, not only once the tail has read of it.
        parts.relay.on_records(cache_versions.forget)
        origins = listed_origins(parts.settings.cookie_origins)
        authenticator = Authenticator(parts.store, cache_versions, entries, origins, session_expiry.uses.note)
        return cls(
            cache_versions, session_expiry, authenticator, HomeDirectory(parts.store, cache_versions, entries)
        )


def _start_lifetimes(parts: Parts, core: Core, core_event_handlers: CoreEventHandlers) -> SessionExpiry:
    uses, ttl_s = parts.store.session_uses, parts.settings.session_ttl_s
    session_expiry = SessionExpiry(core, core_event_handlers.keys_in_use, uses, ttl_s, parts.clock)
    parts.stack.push_async_callback(session_expiry.close)
    in_background(parts.stack, session_expiry.run(), parts.failed)
    parts.metric_sources.append(session_expiry.metrics)
    return session_expiry


def _add_realtime_tier(
    app: web.Application,
    parts: Parts,
    core: Core,
    caches: Caches,
    core_event_handlers: CoreEventHandlers,
    overload: Limits,
    observe: Observer | None,
) -> None:
    """WebSockets and events in."""
    stack, settings, store = parts.stack, parts.settings, parts.store
    presence_publisher = PresencePublisher(
        store, core_event_handlers.connected_devices, settings.presence_lease_s
    )
    # When the core has stopped, everything that was connected here is said to be so no more.
    stack.push_async_callback(presence_publisher.close)
    in_background(stack, presence_publisher.run(), parts.failed)
    stack.push_async_callback(core_event_handlers.delivered.close)
    in_background(stack, core_event_handlers.delivered.run(), parts.failed)
    parts.metric_sources.extend(
        (core_event_handlers.connected_devices.metrics, core_event_handlers.delivered.metrics)
    )
    gateway = websocket.Gateway(
        core,
        caches.authenticator,
        caches.directory,
        caches.cache_versions,
        overload.admission,
        core_event_handlers.tls_bridges,
        store.queued_commands,
        caches.session_expiry.sockets,
        core_event_handlers.connected_devices,
        observe,
    )
    ingest = Ingest(
        parts.bus,
        caches.authenticator,
        caches.directory,
        overload.rates,
        reader=parts.reader,
        shards=settings.shards,
        queued_commands=store.queued_commands,
        max_queued_s=settings.queued_command_s,
        queue_bounds=QueueBounds(
            settings.queued_commands, min(settings.queued_command_bytes, settings.send_queue_bytes)
        ),
        is_connected=partial(core_event_handlers.connected_devices.is_connected, store.presence),
        clock=parts.clock,
        platform_types=settings.platform_event_types,
    )
    app.add_routes(parts.server_limits.handshakes.limited(websocket.routes(gateway)))
    app.add_routes(parts.server_limits.bodies.released(ingest_routes(ingest)))


def _add_rest_tier(app: web.Application, parts: Parts, caches: Caches, audit: Audit, rates: Rates) -> None:
    stack, settings, store = parts.stack, parts.settings, parts.store
    messages = MessageService.of(settings, parts.redis, parts.url, store.projects.get, parts.clock)
    in_background(stack, messages.run(), parts.failed)
    webhooks = WebhookService(parts.url, settings, parts.clock)
    in_background(stack, webhooks.run(), parts.failed)
    parts.metric_sources.extend((messages.metrics, webhooks.metrics))
    slots = SortSlots(settings.sorted_lists, settings.sorted_lists_per_project)
    parts.metric_sources.append(slots.metrics)
    api = Api(
        store,
        caches.directory,
        parts.server_limits.rates.authenticating(caches.authenticator),
        messages.outbox,
        parts.reader,
        settings,
        answers=parts.server_limits.answers,
        turns=parts.server_limits.turns,
        sort_slots=slots,
        audit=audit,
        rates=rates,
    )
    app.add_routes(parts.server_limits.bodies.released(api_routes(api, OPERATIONS)))
    app.add_routes(documentation.routes(ENDPOINTS))
    app.add_routes(parts.server_limits.turns.limited(pages.routes()))


def _dispatch_core_events(
    parts: Parts,
    core: Core,
    client_messages: ClientMessages | None,
    core_event_handlers: CoreEventHandlers,
    overload: Limits,
) -> None:
    watch = CoreEventDispatcher(
        core,
        client_messages,
        core_event_handlers.closed,
        core_event_handlers.connected_devices.adopted,
        core_event_handlers.delivered.written,
        overload.admission.allowance_exceeded,
        core_event_handlers.keys_in_use.on_page,
    )
    parts.stack.callback(watch.close)
    watch.failed.add_done_callback(lambda future: _pass_on(future, parts.failed))


def _problem(core: Core, bus: Bus) -> Problem:
    def problem() -> str | None:
        if not bus.connected:
            return "the bus is not connected to Redis"
        if core.tail_silence_ms() > TAIL_SILENCE_MS:
            return "the tail has not heard from Redis"
        return None

    return problem


def _pass_on(source: asyncio.Future[CoreFailure], failed: asyncio.Future[Exception]) -> None:
    if not source.cancelled() and not failed.done():
        failed.set_result(source.result())
