"""The two ports of a node: that of its clients, and the admin port, for operators alone."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from aiohttp import web

from homewire.errors import ConfigurationError
from homewire.gateway.accept import Acceptor
from homewire.gateway.entrance import Entrance
from homewire.gateway.server import Manners, make_runner
from homewire.hosts import listed_origins
from homewire.settings import Settings

ADMIN_BACKLOG: Final = 16


async def open_port(
    stack: AsyncExitStack,
    settings: Settings,
    app: web.Application,
    entrance: Entrance,
    tls: ssl.SSLContext | None,
) -> str:
    """Serve `app` to clients; the URL under which this machine reaches it. Raises ConfigurationError."""
    manners = Manners(
        settings.request_line_bytes,
        settings.keep_alive_s,
        f"max-age={settings.hsts_s}" if tls is not None and settings.hsts_s else "",
        cookie_origins=listed_origins(settings.cookie_origins),
        answers=entrance.answers,
    )
    runner, server = await make_runner(app, manners, entrance.heads, entrance.connections)
    stack.push_async_callback(app.cleanup)
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(entrance.acceptor.close)
    port = await _bind(entrance.acceptor, settings.host, settings.port, settings.backlog, "port", "host")
    entrance.acceptor.start(server.serve, tls)
    return replace(settings, port=port).base_url


async def open_admin_port(
    stack: AsyncExitStack, settings: Settings, app: web.Application, entrance: Entrance
) -> str:
    """Serve `app` to operators, and to no page of a browser; its URL. Raises ConfigurationError."""
    manners = Manners(settings.request_line_bytes, any_origin=False)
    runner, server = await make_runner(app, manners, entrance.heads)
    acceptor = Acceptor(settings.accepts_per_turn, settings.head_timeout_s)
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
