"""The ports of a node with their TLS certificate, and the health checks that they serve.

The certificate of the port: taken anew when its files change, and when the operator says so (SIGHUP).

A new context serves the connections that come from then on; those that are open keep theirs. What can't be
used is logged, and the old certificate stays.

At the port there is a status and no more: what keeps a node from serving, and all of the metrics, would tell
strangers about its insides.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from homewire.errors import ConfigurationError, Unavailable
from homewire.hosts import listed_origins
from homewire.server.accept import Acceptor
from homewire.server.http import HttpOptions, make_runner
from homewire.server.limits import ServerLimits
from homewire.settings import Settings
from homewire.tls import key_is_open, server_context

ADMIN_BACKLOG: Final = 16


async def open_port(
    stack: AsyncExitStack,
    settings: Settings,
    app: web.Application,
    server_limits: ServerLimits,
    tls: ssl.SSLContext | None,
) -> str:
    """Serve `app` to clients; the URL under which this machine reaches it. Raises ConfigurationError."""
    options = HttpOptions(
        settings.request_line_bytes,
        settings.keep_alive_s,
        f"max-age={settings.hsts_s}" if tls is not None and settings.hsts_s else "",
        cookie_origins=listed_origins(settings.cookie_origins),
        answers=server_limits.answers,
    )
    runner, server = await make_runner(app, options, server_limits.header_timeout, server_limits.connections)
    stack.push_async_callback(app.cleanup)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(server_limits.acceptor.close)
    port = await _bind(server_limits.acceptor, settings.host, settings.port, settings.backlog, "port", "host")
    server_limits.acceptor.start(server.serve, tls)
    return replace(settings, port=port).base_url


async def open_admin_port(
    stack: AsyncExitStack, settings: Settings, app: web.Application, server_limits: ServerLimits
) -> str:
    """Serve `app` to operators, and to no page of a browser; its URL. Raises ConfigurationError."""
    options = HttpOptions(settings.request_line_bytes, any_origin=False)
    runner, server = await make_runner(app, options, server_limits.header_timeout)
    acceptor = Acceptor(settings.accepts_per_turn, settings.request_header_timeout_s)
    stack.push_async_callback(app.cleanup)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(acceptor.close)
    port = await _bind(
        acceptor, settings.admin_host, settings.admin_port, ADMIN_BACKLOG, "admin-port", "admin-host"
    )
    acceptor.start(server.serve)
    return replace(settings, admin_port=port).admin_url


async def _bind(
    acceptor: Acceptor, host: str, port: int, backlog: int, port_flag: str, host_flag: str
) -> int:
    try:
        return await acceptor.bind(host, port, backlog)
    except OSError as error:
        raise ConfigurationError(
            f"can't listen on {host} port {port}: {error.strerror}. "
            f"Choose another --{port_flag} or --{host_flag}."
        ) from error


CHECK_INTERVAL_S: Final = 2.0
"""Files that were the same twice are complete: a certificate and its key are not replaced in one moment."""
FileVersion: TypeAlias = tuple[tuple[int, int, int] | None, ...]

_log = structlog.get_logger(__name__)


class Certificate:
    """That of a node that listens by `acceptor`; without TLS there is nothing to take anew."""

    def __init__(self, settings: Settings, acceptor: Acceptor) -> None:
        self._settings = settings
        self._acceptor = acceptor
        self._taken = self._version()
        if key_is_open(settings):
            _log.warning("tls.key_is_open", problem="every user of this machine can read the key")

    def reload(self) -> None:
        """Take it anew, if there is one."""
        if self._settings.tls_cert is None:
            _log.info("reload", certificate="none")
            return
        self._taken = self._version()
        try:
            context = server_context(self._settings)
        except ConfigurationError as error:
            _log.error("reload.refused", problem=str(error), certificate="the old one stays")
            return
        self._acceptor.speak(context)
        _log.info("reload", certificate=str(self._settings.tls_cert))

    async def watch(self) -> None:
        """Take it anew whenever its files have changed, until cancelled."""
        seen = self._taken
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            before, seen = seen, self._version()
            if seen == before and seen != self._taken:
                self.reload()

    def _version(self) -> FileVersion:
        return tuple(_file_versions(path) for path in (self._settings.tls_cert, self._settings.tls_key))


def _file_versions(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else None


Problem = Callable[[], str | None]
"""What keeps this node from serving, None if nothing does."""


def public_routes(problem: Problem) -> list[web.RouteDef]:
    """What to mount at the URL root of the port."""
    return [web.get("/healthz", healthz), web.get("/readyz", partial(readyz, problem))]


def admin_routes(problem: Problem, metrics: CollectorRegistry) -> list[web.RouteDef]:
    """What to mount at the URL root of the admin port."""
    return [
        web.get("/healthz", healthz),
        web.get("/readyz", partial(explained_readyz, problem)),
        web.get("/metrics", partial(expose, metrics)),
    ]


async def healthz(_request: web.Request) -> web.Response:
    """200 while the event loop turns."""
    return web.json_response({"status": "ok"})


async def readyz(problem: Problem, _request: web.Request) -> web.Response:
    """200 when events can be taken and are delivered. Raises Unavailable otherwise."""
    if problem() is not None:
        raise Unavailable
    return web.json_response({"status": "ready"})


async def explained_readyz(problem: Problem, _request: web.Request) -> web.Response:
    """The same; Unavailable says why."""
    reason = problem()
    if reason is not None:
        raise Unavailable(problem=reason)
    return web.json_response({"status": "ready"})


async def expose(metrics: CollectorRegistry, _request: web.Request) -> web.Response:
    """Prometheus' text format."""
    return web.Response(body=generate_latest(metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})
