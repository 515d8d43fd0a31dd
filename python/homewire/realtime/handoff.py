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

from homewire._core import Core
from homewire.errors import Unavailable
from homewire.realtime.tls_bridge import TlsBridges
from homewire.server.accept import EXHAUSTED
from homewire.server.answers import HandedOff

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

Observer = Callable[[str], Awaitable[None]]
"""Called before each step by its name; tests use it to pause a handshake where they like."""


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
    request: web.Request,
    core: Core,
    connection_id: int,
    tls_bridges: TlsBridges,
    observe: Observer | None = None,
) -> HandedOff:
    """Answers 101 and gives the socket to the connection that was reserved as `connection_id`.

    With TLS the core gets one end of a socket pair, and `tls_bridges` the other and the transport.
    If the client is gone at any step the reservation is undone; there is nobody to tell. Raises Unavailable,
    before the 101, when there are no descriptors left; nothing is reserved then.
    """
    try:
        transport = _transport(request)
        # A 101 promises that the connection is served, so what that takes is there before it.
        offer = _offer(transport, connection_id, tls_bridges)
        try:
            early = await offer.answered(request, observe)
            core.adopt(connection_id, offer.detach(), early)
        except BaseException:
            offer.withdraw()
            raise
        offer.taken(request)
    except OSError:
        # The client is gone, or the kernel refuses its socket to the core; either way it sees the end.
        core.abandon(connection_id)
    except BaseException:
        core.abandon(connection_id)
        raise
    return HandedOff()


def _offer(transport: asyncio.Transport, connection_id: int, tls_bridges: TlsBridges) -> TakenSocket | Bridge:
    """What the core will get. Raises ConnectionError, and Unavailable for want of descriptors."""
    try:
        if transport.get_extra_info("ssl_object") is None:
            return TakenSocket(transport)
        return Bridge(transport, connection_id, tls_bridges)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise Unavailable(problem="the server has no room for another connection") from error
        # The socket is closed already.
        raise ConnectionResetError from error


def _transport(request: web.Request) -> asyncio.Transport:
    """The transport behind a request. Raises ConnectionResetError when the client is gone."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    return transport


class Descriptor:
    """A descriptor that is made for the core, and closed unless it is given away."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """For `Core.adopt`, which owns it from its call on, also when that fails."""
        number, self._number = self._number, -1
        return number

    def close(self) -> None:
        """Of no effect once it was given away."""
        if self._number >= 0:
            os.close(self.detach())


class TakenSocket:
    """A duplicate of the client's socket: the core serves the client itself."""

    __slots__ = ("_descriptor", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        """Raises OSError when the socket is gone, or no descriptor is left."""
        self._transport = transport
        self._descriptor = Descriptor(os.dup(transport.get_extra_info("socket").fileno()))

    def detach(self) -> int:
        """The core's descriptor."""
        return self._descriptor.detach()

    async def answered(self, request: web.Request, observe: Observer | None) -> bytes:
        """Say 101; the client's early bytes. Raises ConnectionError when the client is gone."""
        transport = self._transport
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
        return _early_bytes(request)

    def taken(self, _request: web.Request) -> None:
        """The core has it: aiohttp lets go of its own."""
        self._transport.abort()

    def withdraw(self) -> None:
        """The core does not have it. The client may have been told 101: it sees the connection end."""
        self._descriptor.close()
        self._transport.abort()


class Bridge:
    """An end of a socket pair, for TLS: a bridge serves the client."""

    __slots__ = ("_bridge", "_descriptor", "_transport")

    def __init__(self, transport: asyncio.Transport, connection_id: int, tls_bridges: TlsBridges) -> None:
        """Raises ConnectionResetError at shutdown, OSError when no descriptors are left."""
        self._transport = transport
        self._bridge, descriptor = tls_bridges.bridge(connection_id, transport)
        self._descriptor = Descriptor(descriptor)

    def detach(self) -> int:
        """The core's descriptor."""
        return self._descriptor.detach()

    async def answered(self, request: web.Request, observe: Observer | None) -> bytes:
        """Say 101; the client's early bytes. Raises ConnectionError when the client is gone."""
        self._transport.pause_reading()
        self._transport.write(_switching(request))
        # The transport stays the one writer: it is enough that it does not ask aiohttp to wait.
        await request.writer.drain()
        if observe is not None:
            await observe("adopt")
        _transport(request)
        return _early_bytes(request)

    def taken(self, request: web.Request) -> None:
        """The core has its end: the bridge takes the transport."""
        protocol = request.protocol
        self._bridge.start()
        # aiohttp lets go of what it knows about the connection, but must not close it.
        protocol.transport = None
        protocol.connection_lost(None)

    def withdraw(self) -> None:
        """The core does not have its end. The client may have been told 101: it sees the connection end."""
        self._descriptor.close()
        self._bridge.discard()
        self._transport.abort()


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
