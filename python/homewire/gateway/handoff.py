"""The handoff: aiohttp accepts a socket, answers 101, and gives it to the Rust core.

Only public names of aiohttp are used. The order of steps is that of the design: nothing that
arrives is lost, and no byte is written by two writers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from homewire._core import Core
from homewire.gateway.pump import Pumps

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

Observer = Callable[[str], Awaitable[None]]
"""Called before each step by its name; tests use it to pause a handshake where they like."""


class GivenAway(web.StreamResponse):
    """The answer of a request whose socket is not aiohttp's any more: there is nothing to send."""

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, _data: Any = b"") -> None:
        return None


class EarlyBytes:
    """Collects what a client sent right behind its upgrade request, in aiohttp's own buffers."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The client half-closed; the core reads that from the socket itself."""

    def set_exception(self, _error: BaseException, _cause: BaseException | None = None) -> None:
        """The connection broke; the core reads that from the socket itself."""


def accept_key(key: str) -> bytes:
    """The value of Sec-WebSocket-Accept for a client's Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest())


async def hand_off(
    request: web.Request, core: Core, connection_id: int, pumps: Pumps, observe: Observer | None = None
) -> GivenAway:
    """Answers 101 and gives the socket to the connection that was reserved as `connection_id`.

    Where TLS ends here, the core gets one end of a socket pair, and `pumps` the other and the transport.
    If the client is gone at any step the reservation is undone; there is nobody to tell.
    """
    try:
        transport = _transport(request)
        if transport.get_extra_info("ssl_object") is None:
            descriptor, early = await _take_socket(request, transport, observe)
        else:
            descriptor, early = await _bridge(request, transport, connection_id, pumps, observe)
    except (ConnectionError, OSError):
        core.abandon(connection_id)
        return GivenAway()
    except BaseException:
        core.abandon(connection_id)
        raise
    core.adopt(connection_id, descriptor, early)
    return GivenAway()


def _transport(request: web.Request) -> asyncio.Transport:
    """The transport behind a request. Raises ConnectionResetError when the client is gone."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    return transport


async def _take_socket(
    request: web.Request, transport: asyncio.Transport, observe: Observer | None
) -> tuple[int, bytes]:
    """The duplicate of the socket behind an answered request, and the client's early bytes.

    Raises ConnectionError when the client is gone.
    """
    # From here on aiohttp reads nothing: what comes now stays in the kernel for the core.
    transport.pause_reading()
    # High water 0 makes drain() wait until the kernel has every byte.
    transport.set_write_buffer_limits(0)
    transport.write(_switching(request))
    if transport.get_write_buffer_size() > 0:
        await request.writer.drain()
    if observe is not None:
        await observe("adopt")
    _transport(request)
    early = _early_bytes(request)
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    transport.abort()
    return descriptor, early


async def _bridge(
    request: web.Request,
    transport: asyncio.Transport,
    connection_id: int,
    pumps: Pumps,
    observe: Observer | None,
) -> tuple[int, bytes]:
    """The core's end of a socket pair to a TLS connection, and the client's early bytes.

    Raises ConnectionError when the client is gone.
    """
    transport.pause_reading()
    transport.write(_switching(request))
    # The transport stays the one writer: it is enough that it does not ask aiohttp to wait.
    await request.writer.drain()
    if observe is not None:
        await observe("adopt")
    _transport(request)
    pump, descriptor = pumps.bridge(connection_id, transport)
    protocol = request.protocol
    early = _early_bytes(request)
    pump.start()
    # aiohttp lets go of what it knows about the connection, but must not close it.
    protocol.transport = None
    protocol.connection_lost(None)
    return descriptor, early


def _switching(request: web.Request) -> bytes:
    """The answer 101 (RFC 6455 section 4.2.2)."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(request.headers["Sec-WebSocket-Key"]) + b"\r\n\r\n"
    )


def _early_bytes(request: web.Request) -> bytes:
    """What the client sent right behind its request. aiohttp reads no more of it."""
    collector = EarlyBytes()
    # aiohttp only calls feed_data here, and its annotation names its own reader.
    request.protocol.set_parser(cast(Any, collector))
    return collector.data
