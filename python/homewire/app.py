"""The composition root: the only module that imports every package.

`running` starts a node, yields it and stops it. `serve` runs a node until a signal stops it.
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
from homewire.auth.access import Authorisation
from homewire.auth.authenticator import Authenticator
from homewire.auth.cache import CacheVersions
from homewire.auth.home_directory import HomeDirectory
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import in_background
from homewire.errors import CoreFailure
from homewire.events.api import routes as event_routes
from homewire.events.context import EventContext
from homewire.events.queued_commands import QueueBounds
from homewire.hosts import listed_origins
from homewire.limits.rates import Rates
from homewire.machine import collect_seldom, raise_open_file_limit
from homewire.messages.pages import routes as page_routes
from homewire.messages.service import MessageService
from homewire.node_address import noted
from homewire.openapi.page import routes as documentation_routes
from homewire.operations import ENDPOINTS, OPERATIONS
from homewire.parts import Limits, Parts, start_core, start_parts, to_ms
from homewire.presence.publisher import PresencePublisher
from homewire.realtime.close_codes import GOING_AWAY, reason
from homewire.realtime.core_events import (
    ClientMessages,
    CoreEventDispatcher,
    CoreEventHandlers,
    report_skipped,
)
from homewire.realtime.handoff import Observer
from homewire.realtime.handshake import HandshakeContext
from homewire.realtime.handshake import routes as websocket_routes
from homewire.rest.context import RestContext, SortSlots
from homewire.rest.dispatch import routes as api_routes
from homewire.rest.shapes import rendered
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
"""The stream reader gets a reply of Redis several times a second. After a longer silence it counts as
disconnected."""

SWITCH_S: Final = 0.000_5
"""How long a thread that sorts or hashes may hold the interpreter while the event loop waits, in s. Python's
default of 5 ms would delay each turn of the loop by as much."""


class Tier(StrEnum):
    """A group of services that a process runs; `homewire run` has both."""

    ROUTER = "router"
    API = "api"


@dataclass(frozen=True, slots=True)
class Node:
    """A running node."""

    base_url: str
    admin_url: str
    reload: Callable[[], None]
    """Load the certificate again."""
    core: Core
    app: web.Application
    """The application of the public port."""
    failed: asyncio.Future[Exception]
    """Set when the node cannot continue."""


BackgroundWork = Callable[[Node], Coroutine[Any, Any, None]]
"""A coroutine function that runs while the node serves."""


async def serve(settings: Settings, tiers: frozenset[Tier], background: BackgroundWork | None = None) -> None:
    """Run a node until SIGINT or SIGTERM. `background` runs as long as the port is open.

    Raises ConfigurationError when the node cannot start, CoreFailure when it cannot continue.
    """
    log.configure(settings.log_level, settings.log_format)
    _log_ignored_variables()
    for problem, advice in contradictions(settings):
        _log.warning("settings.contradiction", problem=problem, advice=advice)
    raise_open_file_limit()
    stop = asyncio.Event()
    serving = asyncio.create_task(_serve(settings, tiers, background, stop))

    def cancel() -> None:
        stop.set()
        serving.cancel()

    # A signal during the start cancels whatever the start waits for.
    _on_signals(cancel)
    # A closed terminal and `systemctl reload` send SIGHUP, which ends a process by default.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _log.info, "reload.too_early")
    try:
        await serving
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


def _log_ignored_variables() -> None:
    """Log environment variables with the prefix HOMEWIRE_ that are not settings."""
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
    """Start the parts of a node in the order of their dependencies, and stop them in the reverse order.

    All parts get their time from `clock`.
    """
    tls = server_context(settings)
    sys.setswitchinterval(SWITCH_S)
    async with AsyncExitStack() as stack:
        parts = await start_parts(stack, settings, clock)
        handlers = CoreEventHandlers.of(settings, parts.store.queued_commands, clock)
        # The bridges stop after the core, so that its last bytes are sent.
        stack.push_async_callback(handlers.tls_bridges.close)
        # The REST tier has a core, too: its stream reader tells when cached records are outdated.
        core = start_core(parts, client_messages)
        # The REST tier has limits, too: it sends events.
        limits = Limits(parts.redis, core, settings, parts.store.refusals, clock)
        _dispatch_core_events(parts, core, handlers, limits, client_messages)
        in_background(stack, limits.run(), parts.failed)
        in_background(stack, report_skipped(core), parts.failed)
        session_expiry = _start_session_expiry(parts, core, handlers)
        caches = Caches.of(parts, core, session_expiry)
        audit = Audit(clock)
        app = web.Application()
        if Tier.ROUTER in tiers:
            _add_realtime_tier(app, parts, core, caches, handlers, limits, observe)
        if Tier.API in tiers:
            _add_rest_tier(app, parts, caches, audit, limits.rates)
        labelled = {
            "refused": parts.store.refusals,
            "quota_refused": parts.store.usage.refusals,
            "logins": audit.logins,
            "refusals": audit.refusals,
        }
        registry = metrics.registry(core, parts.bus, parts.relay, labelled, parts.metric_sources)
        problem = _problem(core, parts)
        app.add_routes(parts.server_limits.turns.limited(public_routes(problem)))
        admin = web.Application()
        admin.add_routes(admin_routes(problem, registry))
        stack.callback(parts.server_limits.header_timeout.close)
        admin_url = await open_admin_port(stack, settings, admin, parts.server_limits, rendered)
        base_url = await open_port(stack, settings, app, parts.server_limits, audit.render, tls)
        certificate = Certificate(settings, parts.server_limits.acceptor)
        if tls is not None:
            in_background(stack, certificate.watch(), parts.failed)
        # Connections are closed first, while all other parts still run.
        stack.push_async_callback(
            asyncio.to_thread, core.stop, GOING_AWAY, reason(GOING_AWAY), to_ms(settings.close_s)
        )
        # Before that, the node stops accepting connections.
        stack.push_async_callback(parts.server_limits.acceptor.close)
        stack.enter_context(noted(settings.data_dir, base_url))
        yield Node(base_url, admin_url, certificate.reload, core, app, parts.failed)


@dataclass(frozen=True, slots=True)
class Caches:
    """What a node answers from caches, and the cache versions that tell whether a record is current."""

    cache_versions: CacheVersions
    session_expiry: SessionExpiry
    authenticator: Authenticator
    authorisation: Authorisation

    @classmethod
    def of(cls, parts: Parts, core: Core, session_expiry: SessionExpiry) -> Caches:
        """Empty caches."""
        entries = parts.settings.principal_cache_entries
        cache_versions = CacheVersions(core, parts.settings.shards)
        # A change on this node takes effect before it is answered, not when the stream reader reads of it.
        parts.relay.on_records(cache_versions.forget)
        origins = listed_origins(parts.settings.cookie_origins)
        authenticator = Authenticator(parts.store, cache_versions, entries, origins, session_expiry.uses.note)
        authorisation = Authorisation(HomeDirectory(parts.store, cache_versions, entries))
        return cls(cache_versions, session_expiry, authenticator, authorisation)


def _start_session_expiry(parts: Parts, core: Core, handlers: CoreEventHandlers) -> SessionExpiry:
    uses, ttl_s = parts.store.session_uses, parts.settings.session_ttl_s
    session_expiry = SessionExpiry(core, handlers.active_keys, uses, ttl_s, parts.clock)
    parts.stack.push_async_callback(session_expiry.close)
    in_background(parts.stack, session_expiry.run(), parts.failed)
    parts.metric_sources.append(session_expiry.metrics)
    return session_expiry


def _add_realtime_tier(
    app: web.Application,
    parts: Parts,
    core: Core,
    caches: Caches,
    handlers: CoreEventHandlers,
    limits: Limits,
    observe: Observer | None,
) -> None:
    """Add the WebSocket endpoints, and the operations that send events and commands."""
    stack, settings, store = parts.stack, parts.settings, parts.store
    connected_devices, remover = handlers.connected_devices, handlers.queued_command_remover
    presence_publisher = PresencePublisher(store, connected_devices, settings.presence_lease_s)
    # When the core has stopped, the publisher reports that the devices of this node are disconnected.
    stack.push_async_callback(presence_publisher.close)
    in_background(stack, presence_publisher.run(), parts.failed)
    stack.push_async_callback(remover.close)
    in_background(stack, remover.run(), parts.failed)
    parts.metric_sources.extend((connected_devices.metrics, remover.metrics))
    handshake_context = HandshakeContext(
        core,
        caches.authenticator,
        caches.authorisation,
        caches.cache_versions,
        limits.connections,
        handlers.tls_bridges,
        store.queued_commands,
        caches.session_expiry.sockets,
        connected_devices,
        observe,
    )
    event_context = EventContext(
        parts.bus,
        caches.authenticator,
        caches.authorisation,
        limits.rates,
        reader=parts.reader,
        shards=settings.shards,
        queued_commands=store.queued_commands,
        max_queued_s=settings.queued_command_s,
        queue_bounds=QueueBounds(
            settings.queued_commands, min(settings.queued_command_bytes, settings.send_queue_bytes)
        ),
        is_connected=partial(connected_devices.is_connected, store.presence),
        clock=parts.clock,
        platform_types=settings.platform_event_types,
    )
    app.add_routes(parts.server_limits.handshakes.limited(websocket_routes(handshake_context)))
    app.add_routes(parts.server_limits.bodies.released(event_routes(event_context)))


def _add_rest_tier(app: web.Application, parts: Parts, caches: Caches, audit: Audit, rates: Rates) -> None:
    """Add the REST service, its documentation and the pages of e-mails."""
    stack, settings, store = parts.stack, parts.settings, parts.store
    messages = MessageService.of(settings, parts.redis, store.projects.get, parts.clock)
    in_background(stack, messages.run(), parts.failed)
    webhooks = WebhookService(parts.redis, settings, parts.clock)
    in_background(stack, webhooks.run(), parts.failed)
    parts.metric_sources.extend((messages.metrics, webhooks.metrics))
    slots = SortSlots(settings.sorted_lists, settings.sorted_lists_per_project)
    parts.metric_sources.append(slots.metrics)
    rest_context = RestContext(
        store,
        caches.authorisation,
        parts.server_limits.rates.authenticating(caches.authenticator),
        messages.outbox,
        parts.reader,
        settings,
        response_budget=parts.server_limits.response_budget,
        turns=parts.server_limits.turns,
        sort_slots=slots,
        audit=audit,
        rates=rates,
    )
    app.add_routes(parts.server_limits.bodies.released(api_routes(rest_context, OPERATIONS)))
    app.add_routes(documentation_routes(ENDPOINTS))
    app.add_routes(parts.server_limits.turns.limited(page_routes()))


def _dispatch_core_events(
    parts: Parts,
    core: Core,
    handlers: CoreEventHandlers,
    limits: Limits,
    client_messages: ClientMessages | None,
) -> None:
    dispatcher = CoreEventDispatcher(core, handlers, limits.connections, client_messages)
    parts.stack.callback(dispatcher.close)
    dispatcher.failed.add_done_callback(lambda future: _pass_on(future, parts.failed))


def _problem(core: Core, parts: Parts) -> Problem:
    def problem() -> str | None:
        if parts.identity.problem is not None:
            return parts.identity.problem
        if not parts.bus.connected:
            return "the bus is not connected to Redis"
        if core.tail_silence_ms() > TAIL_SILENCE_MS:
            return "the stream reader gets no replies from Redis"
        return None

    return problem


def _pass_on(source: asyncio.Future[CoreFailure], failed: asyncio.Future[Exception]) -> None:
    if not source.cancelled() and not failed.done():
        failed.set_result(source.result())
