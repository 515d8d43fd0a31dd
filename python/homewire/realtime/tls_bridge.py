"""TLS bridges: for a connection with TLS the core gets one end of a socket pair instead of the socket.

The core treats its end as any other socket. At the other end a `TlsBridge` takes the place of aiohttp at the
TLS transport, and copies bytes in both directions. It holds at most one chunk in each direction. If the
client does not read, the bridge does not read from the core, so that the core's bounds for slow consumers
apply.

A bridge has no tasks: the event loop calls it when one side can be read or written. A task for each direction
would cost 10 KB for each connection, and a turn of the loop for each delivery.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from homewire.settings import Settings

CHUNK_BYTES: Final = 64 * 1024
"""Bytes read from the core at once. The TLS transport buffers about as many before it pauses the bridge."""
SHUTDOWN_S: Final = 1.0
"""How long the last bytes of the core may take to be sent after the core has stopped."""


@dataclass(frozen=True, slots=True)
class KernelBounds:
    """Bounds of the kernel's buffers for a client; 0 is the default of the kernel.

    The core sets them for the sockets that it adopts. Of a connection with TLS it has only the socket pair.
    """

    send_buffer_bytes: int = 0
    """SO_SNDBUF."""
    unsent_bytes: int = 0
    """TCP_NOTSENT_LOWAT."""
    timeout_ms: int = 0
    """TCP_USER_TIMEOUT."""

    @classmethod
    def of(cls, settings: Settings) -> KernelBounds:
        """The bounds of the settings."""
        timeout_ms = round(settings.socket_timeout_s * 1000)
        return cls(settings.socket_send_buffer_bytes, settings.socket_unsent_bytes, timeout_ms)

    def apply(self, transport: asyncio.Transport) -> None:
        """Bound the TCP socket of `transport`. Raises OSError when it is gone."""
        # On a duplicate: not every event loop lets options of a transport's socket be changed.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as tcp:
            if self.send_buffer_bytes:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes)
            if self.unsent_bytes:
                tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.unsent_bytes)
            if self.timeout_ms:
                tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.timeout_ms)


class TlsBridges:
    """All TLS bridges of a node. `linger_s`: how long a client may take to close after the core has
    closed."""

    def __init__(self, linger_s: float, bounds: KernelBounds) -> None:
        self._linger_s = linger_s
        self._bounds = bounds
        self._bridges: dict[int, TlsBridge] = {}
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._bridges)

    def bridge(self, connection_id: int, transport: asyncio.Transport) -> tuple[TlsBridge, int]:
        """Create a bridge for `transport`, which is not started, and the descriptor for the core.

        The caller owns the descriptor. Raises ConnectionResetError at shutdown, OSError without free
        descriptors.
        """
        if self._closed:
            raise ConnectionResetError
        near, far = socket.socketpair()
        try:
            self._bounds.apply(transport)
        except OSError:
            near.close()
            far.close()
            raise
        near.setblocking(False)
        bridge = TlsBridge(transport, near, self._linger_s, lambda: self._ended(connection_id))
        self._bridges[connection_id] = bridge
        self._empty.clear()
        return bridge, far.detach()

    def core_ended(self, connection_id: int) -> None:
        """A connection ended in the core. Connections without a bridge are ignored."""
        if (bridge := self._bridges.get(connection_id)) is not None:
            bridge.core_ended()

    async def close(self) -> None:
        """End all bridges, after the last bytes of the core are sent. To be called when the core has
        stopped."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                await self._empty.wait()
        for bridge in list(self._bridges.values()):
            bridge.abort()
        await self._empty.wait()

    def _ended(self, connection_id: int) -> None:
        del self._bridges[connection_id]
        if not self._bridges:
            self._empty.set()


class TlsBridge(asyncio.Protocol):
    """Connects a TLS transport with the near end of a socket pair. `ended` is called when both are closed."""

    __slots__ = (
        "_backlog",
        "_core_done",
        "_core_gone",
        "_deadline",
        "_ended",
        "_linger_s",
        "_loop",
        "_lost",
        "_near",
        "_paused",
        "_transport",
    )

    def __init__(
        self, transport: asyncio.Transport, near: socket.socket, linger_s: float, ended: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._near = near
        self._linger_s = linger_s
        self._ended = ended
        self._backlog = bytearray()
        """Bytes of the client that the core has not taken yet."""
        self._core_gone = False
        """The core has closed its end. Bytes that it sent before may still be unread."""
        self._core_done = False
        """All bytes of the core were read."""
        self._paused = False
        """The write buffer of the transport is full."""
        self._lost = False
        """The connection to the client is closed."""
        self._deadline: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Replace the protocol of the transport, and copy bytes in both directions."""
        self._transport.set_protocol(self)
        self._loop.add_reader(self._near, self._read_core)
        self._transport.set_write_buffer_limits(CHUNK_BYTES)
        self._transport.resume_reading()

    def discard(self) -> None:
        """Remove a bridge that was not started. Its reservation may have ended already (`core_ended`)."""
        self._loop.remove_reader(self._near)
        if self._deadline is not None:
            self._deadline.cancel()
        self._near.close()
        self._ended()

    def core_ended(self) -> None:
        """The core has closed its end. The client has `linger_s` to take the last bytes."""
        # A notification is needed: while the client does not read, the core's end is not read either.
        self._core_gone = True
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._linger_s, self.abort)
        if not self._paused and not self._core_done:
            # libuv calls the reader only once after the core closed with unread bytes (POLLERR).
            self._loop.remove_reader(self._near)
            self._loop.add_reader(self._near, self._read_core)

    def abort(self) -> None:
        """Close both sides at once."""
        self._transport.abort()

    # -- from the core to the client --

    def _read_core(self) -> None:
        while True:
            try:
                data = self._near.recv(CHUNK_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                data = b""  # The core closed with unread bytes of the client.
            if not data:
                self._close()
                return
            if not self._transport.is_closing():
                self._transport.write(data)
            if not self._core_gone or self._paused:
                return

    def _close(self) -> None:
        self._core_done = True
        self._loop.remove_reader(self._near)
        self.core_ended()
        # After a second close() of asyncio's TLS transport, abort() would have no effect.
        if not self._transport.is_closing():
            self._transport.close()

    def pause_writing(self) -> None:
        """The client reads too slowly (asyncio.BaseProtocol)."""
        self._paused = True
        if not self._lost:
            self._loop.remove_reader(self._near)

    def resume_writing(self) -> None:
        """The client has caught up (asyncio.BaseProtocol)."""
        self._paused = False
        if not self._core_done and not self._lost:
            self._loop.add_reader(self._near, self._read_core)

    # -- from the client to the core --

    def data_received(self, data: bytes) -> None:
        """The client sent bytes (asyncio.Protocol)."""
        if self._core_gone:
            return
        sent = 0 if self._backlog else self._send(data)
        if sent == len(data) or self._core_gone:
            return
        if not self._backlog:
            self._transport.pause_reading()
            self._loop.add_writer(self._near, self._flush)
        self._backlog += data[sent:]

    def connection_lost(self, _error: Exception | None) -> None:
        """The client closed the connection, or half of it (asyncio.BaseProtocol)."""
        self._lost = True
        self._loop.remove_reader(self._near)
        self._loop.remove_writer(self._near)
        self._near.close()
        if self._deadline is not None:
            self._deadline.cancel()
        self._ended()

    def _flush(self) -> None:
        del self._backlog[: self._send(self._backlog)]
        if self._core_gone:
            self._backlog.clear()
        if not self._backlog:
            self._loop.remove_writer(self._near)
            self._transport.resume_reading()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._near.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.core_ended()
            return 0
