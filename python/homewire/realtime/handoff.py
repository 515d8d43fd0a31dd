"""The handoff: aiohttp accepts a socket, answers 101, and gives the socket to the Rust core.

The code uses only public names of aiohttp. The order of the steps makes sure that no byte of the client is
lost, and that a socket never has two writers (docs/design/handoff.md).
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
"""Called before each step with its name. Tests use it to pause a handshake."""


class EarlyBytes:
    """Collects what a client sent directly after its upgrade request, and aiohttp has already read."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The client half-closed the connection. The core reads that from the socket."""

    def set_exception(self, _error: BaseException, _cause: BaseException | None = None) -> None:
        """The connection broke. The core reads that from the socket."""


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
    """Answer 101 and give the socket to the reservation `connection_id`.

    With TLS the core gets one end of a socket pair, and a TLS bridge gets the other end and the transport. If
    the client is gone at any step, the reservation is abandoned. Raises Unavailable, before the 101 and with
    the reservation abandoned, when no descriptors are left.
    """
    try:
        transport = _transport(request)
        # A client with a 101 expects to be served, so the descriptors are allocated before it.
        offer = _offer(transport, connection_id, tls_bridges)
        try:
            early = await offer.answer(request, observe)
            core.adopt(connection_id, offer.detach(), early)
            # Behind the other handshakes of this turn of the loop, whose adoptions it wakes, too.
            asyncio.get_running_loop().call_soon(core.wake)
        except BaseException:
            offer.withdraw()
            raise
        offer.adopted(request)
    except OSError:
        # The client is gone, or the kernel refused an operation on its socket. Its connection is closed.
        core.abandon(connection_id)
    except BaseException:
        core.abandon(connection_id)
        raise
    return HandedOff()


def _offer(
    transport: asyncio.Transport, connection_id: int, tls_bridges: TlsBridges
) -> SocketOffer | BridgeOffer:
    """Prepare the descriptor for the core. Raises ConnectionError, and Unavailable without free
    descriptors."""
    try:
        if transport.get_extra_info("ssl_object") is None:
            return SocketOffer(transport)
        return BridgeOffer(transport, connection_id, tls_bridges)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise Unavailable(problem="the server has no room for another connection") from error
        # The socket is closed already.
        raise ConnectionResetError from error


def _transport(request: web.Request) -> asyncio.Transport:
    """The transport of a request. Raises ConnectionResetError when the client is gone."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    return transport


class Descriptor:
    """A descriptor for the core. It is closed unless it was detached."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """Return the descriptor for `Core.adopt`, which owns it from the call on, also when it fails."""
        number, self._number = self._number, -1
        return number

    def close(self) -> None:
        """Close the descriptor, unless it was detached."""
        if self._number >= 0:
            os.close(self.detach())


class SocketOffer:
    """A duplicate of the client's socket, on which the core serves the client."""

    __slots__ = ("_descriptor", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        """Raises OSError when the socket is gone, or no descriptor is left."""
        self._transport = transport
        self._descriptor = Descriptor(os.dup(transport.get_extra_info("socket").fileno()))

    def detach(self) -> int:
        """Return the descriptor for the core."""
        return self._descriptor.detach()

    async def answer(self, request: web.Request, observe: Observer | None) -> bytes:
        """Answer 101, and return the early bytes of the client. Raises ConnectionError if it is gone."""
        transport = self._transport
        # From here on aiohttp reads nothing: later bytes stay in the kernel for the core.
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

    def adopted(self, _request: web.Request) -> None:
        """The core has adopted its duplicate: close the socket of aiohttp."""
        self._transport.abort()

    def withdraw(self) -> None:
        """The core has not adopted the socket: close the connection. The client may have got its 101."""
        self._descriptor.close()
        self._transport.abort()


class BridgeOffer:
    """One end of a socket pair, for TLS. A bridge connects the other end with the client."""

    __slots__ = ("_bridge", "_descriptor", "_transport")

    def __init__(self, transport: asyncio.Transport, connection_id: int, tls_bridges: TlsBridges) -> None:
        """Raises ConnectionResetError at shutdown, OSError when no descriptors are left."""
        self._transport = transport
        self._bridge, descriptor = tls_bridges.bridge(connection_id, transport)
        self._descriptor = Descriptor(descriptor)

    def detach(self) -> int:
        """Return the descriptor for the core."""
        return self._descriptor.detach()

    async def answer(self, request: web.Request, observe: Observer | None) -> bytes:
        """Answer 101, and return the early bytes of the client. Raises ConnectionError if it is gone."""
        self._transport.pause_reading()
        self._transport.write(_switching(request))
        # The transport remains the only writer. So its buffer need not be empty, only below its limit.
        await request.writer.drain()
        if observe is not None:
            await observe("adopt")
        _transport(request)
        return _early_bytes(request)

    def adopted(self, request: web.Request) -> None:
        """The core has adopted its end: the bridge takes the transport."""
        protocol = request.protocol
        self._bridge.start()
        # aiohttp forgets the connection, and must not close it.
        protocol.transport = None
        protocol.connection_lost(None)

    def withdraw(self) -> None:
        """The core has not adopted its end: close the connection. The client may have got its 101."""
        self._descriptor.close()
        self._bridge.discard()
        self._transport.abort()


def _switching(request: web.Request) -> bytes:
    """The response 101 (RFC 6455 section 4.2.2)."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(request.headers["Sec-WebSocket-Key"]) + b"\r\n\r\n"
    )


def _early_bytes(request: web.Request) -> bytes:
    """The bytes that the client sent directly after its request. aiohttp reads no more of the connection."""
    collector = EarlyBytes()
    # aiohttp only calls feed_data here. Its annotation names its own parser.
    request.protocol.set_parser(cast(Any, collector))
    return collector.data
