"""The two ports of a node, the TLS certificate of the public one, and their health checks.

The certificate is loaded again when its files change, and on SIGHUP. New connections use the new certificate;
open ones keep theirs. If the files are invalid, that is logged, and the old certificate stays in use.

The public port shows only the status of a node. The reason why it cannot serve, and the metrics, are at the
admin port.
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
from homewire.server.http import HttpOptions, Render, Rendering, make_runner
from homewire.server.limits import ServerLimits
from homewire.settings import Settings
from homewire.tls import key_is_open, server_context

ADMIN_BACKLOG: Final = 16


async def open_port(
    stack: AsyncExitStack,
    settings: Settings,
    app: web.Application,
    server_limits: ServerLimits,
    render: Render,
    tls: ssl.SSLContext | None,
) -> str:
    """Serve `app` at the public port, with errors as `render` makes them.

    Returns its URL for this machine. Raises ConfigurationError.
    """
    options = HttpOptions(
        settings.request_line_bytes,
        settings.keep_alive_s,
        f"max-age={settings.hsts_s}" if tls is not None and settings.hsts_s else "",
        cookie_origins=listed_origins(settings.cookie_origins),
        response_budget=server_limits.response_budget,
    )
    rendering = Rendering(render, server_limits.rates.request)
    runner, server = await make_runner(
        app, options, server_limits.header_timeout, rendering, server_limits.connections
    )
    stack.push_async_callback(app.cleanup)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(server_limits.acceptor.close)
    port = await _bind(server_limits.acceptor, settings.host, settings.port, settings.backlog, "port", "host")
    server_limits.acceptor.start(server.serve, tls)
    return replace(settings, port=port).base_url


async def open_admin_port(
    stack: AsyncExitStack,
    settings: Settings,
    app: web.Application,
    server_limits: ServerLimits,
    render: Render,
) -> str:
    """Serve `app` at the admin port, not for pages of browsers. Returns its URL. Raises
    ConfigurationError."""
    options = HttpOptions(settings.request_line_bytes, any_origin=False)
    runner, server = await make_runner(app, options, server_limits.header_timeout, Rendering(render))
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
            f"cannot listen on {host} port {port}: {error.strerror}. "
            f"Choose another --{port_flag} or --{host_flag}."
        ) from error


CHECK_INTERVAL_S: Final = 2.0
"""Files count as complete when two checks find the same: certificate and key are not replaced at once."""
FileVersion: TypeAlias = tuple[tuple[int, int, int] | None, ...]

_log = structlog.get_logger(__name__)


class Certificate:
    """The certificate of the public port, which listens with `acceptor`. Without TLS it has no effect."""

    def __init__(self, settings: Settings, acceptor: Acceptor) -> None:
        self._settings = settings
        self._acceptor = acceptor
        self._loaded = self._version()
        if key_is_open(settings):
            _log.warning("tls.key_is_open", problem="every user of this machine can read the key")

    def reload(self) -> None:
        """Load the certificate again, if there is one."""
        if self._settings.tls_cert is None:
            _log.info("reload", certificate="none")
            return
        self._loaded = self._version()
        try:
            context = server_context(self._settings)
        except ConfigurationError as error:
            _log.error("reload.refused", problem=str(error), certificate="the old one stays")
            return
        self._acceptor.use_tls(context)
        _log.info("reload", certificate=str(self._settings.tls_cert))

    async def watch(self) -> None:
        """Load the certificate again whenever its files have changed, until cancelled."""
        seen = self._loaded
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            before, seen = seen, self._version()
            if seen == before and seen != self._loaded:
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
"""The reason why this node cannot serve, or None."""


def public_routes(problem: Problem) -> list[web.RouteDef]:
    """The routes of the public port, to be mounted at the URL root."""
    return [web.get("/healthz", healthz), web.get("/readyz", partial(readyz, problem))]


def admin_routes(problem: Problem, metrics: CollectorRegistry) -> list[web.RouteDef]:
    """The routes of the admin port, to be mounted at the URL root."""
    return [
        web.get("/healthz", healthz),
        web.get("/readyz", partial(explained_readyz, problem)),
        web.get("/metrics", partial(expose, metrics)),
    ]


async def healthz(_request: web.Request) -> web.Response:
    """200 while the event loop runs."""
    return web.json_response({"status": "ok"})


async def readyz(problem: Problem, _request: web.Request) -> web.Response:
    """200 if the node can accept and deliver events. Raises Unavailable otherwise."""
    if problem() is not None:
        raise Unavailable
    return web.json_response({"status": "ready"})


async def explained_readyz(problem: Problem, _request: web.Request) -> web.Response:
    """The same with a reason: Unavailable has the problem."""
    reason = problem()
    if reason is not None:
        raise Unavailable(problem=reason)
    return web.json_response({"status": "ready"})


async def expose(metrics: CollectorRegistry, _request: web.Request) -> web.Response:
    """The metrics in Prometheus' text format."""
    return web.Response(body=generate_latest(metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})
