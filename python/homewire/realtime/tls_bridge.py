"""Where TLS ends here, the core cannot have the socket: a socket pair, and what carries bytes along it.

One end goes to the core, which treats it as any other socket. At the other end is a `TlsBridge`, which takes
aiohttp's place at the TLS transport. It holds no more than one chunk in each direction: who does not
take what it has is not given more, so that the core's bounds see a client that does not read.

No tasks: the loop calls the pump when one side can be read or written. A task for each direction would
cost 10 KB a connection and a turn of the loop for each delivery.
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
"""Read from the core at once; the TLS transport holds about as much before it says stop."""
SHUTDOWN_S: Final = 1.0
"""How long, once the core has stopped, what it said last may take to reach the clients."""


@dataclass(frozen=True, slots=True)
class KernelBounds:
    """What the kernel may hold for a client, and for how long; 0 leaves the kernel's own.

    The core bounds the sockets that it takes (`connection.rs`); of these it has but one end of a pair.
    """

    send_buffer_bytes: int = 0
    """SO_SNDBUF."""
    unsent_bytes: int = 0
    """TCP_NOTSENT_LOWAT."""
    timeout_ms: int = 0
    """TCP_USER_TIMEOUT."""

    @classmethod
    def of(cls, settings: Settings) -> KernelBounds:
        """As the settings have them."""
        timeout_ms = round(settings.socket_timeout_s * 1000)
        return cls(settings.socket_send_buffer_bytes, settings.socket_unsent_bytes, timeout_ms)

    def apply(self, transport: asyncio.Transport) -> None:
        """Bound the TCP socket of `transport`. Raises OSError when it is gone."""
        # By a descriptor of its own: not every loop lets a transport's socket be changed.
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as tcp:
            if self.send_buffer_bytes:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes)
            if self.unsent_bytes:
                tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.unsent_bytes)
            if self.timeout_ms:
                tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.timeout_ms)


class TlsBridges:
    """All TLS bridges of a node. `linger_s`: how long a client may take to close what the core has closed."""

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
        """A bridge for `transport`, to be started, and the descriptor for the core, which is the caller's.

        Raises ConnectionResetError at shutdown, OSError when there are no descriptors left.
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
        """A connection ended in the core; an unknown id is one without a bridge."""
        if (bridge := self._bridges.get(connection_id)) is not None:
            bridge.core_ended()

    async def close(self) -> None:
        """End all bridges. Call it when the core has stopped; its last bytes are still sent."""
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
    """Between a TLS transport and the near end of a socket pair. `ended` is called once both are done."""

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
        """What the core did not take yet."""
        self._core_gone = False
        """The core has closed its end; what it said before may still be there to be read."""
        self._core_done = False
        """All that was read."""
        self._paused = False
        """The client takes no more for now."""
        self._lost = False
        """The client is gone."""
        self._deadline: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take the transport from its protocol, and let bytes go both ways."""
        self._transport.set_protocol(self)
        self._loop.add_reader(self._near, self._read_core)
        self._transport.set_write_buffer_limits(CHUNK_BYTES)
        self._transport.resume_reading()

    def discard(self) -> None:
        """Undo a bridge that was not started. Its reservation may have ended meanwhile (`core_ended`)."""
        self._loop.remove_reader(self._near)
        if self._deadline is not None:
            self._deadline.cancel()
        self._near.close()
        self._ended()

    def core_ended(self) -> None:
        """The core has closed its end. What it said before may take the client `linger_s`."""
        # A client that does not read keeps us from reading the core's end, and so from seeing this.
        self._core_gone = True
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._linger_s, self.abort)
        if not self._paused and not self._core_done:
            # libuv calls once and no more where the core left something unread (POLLERR).
            self._loop.remove_reader(self._near)
            self._loop.add_reader(self._near, self._read_core)

    def abort(self) -> None:
        """End both sides now."""
        self._transport.abort()

    # -- from the core to the client --

    def _read_core(self) -> None:
        while True:
            try:
                data = self._near.recv(CHUNK_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                data = b""  # The core closed with something of the client's unread.
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
        # A second close() of asyncio's TLS transport would cut its ties, and abort() do nothing.
        if not self._transport.is_closing():
            self._transport.close()

    def pause_writing(self) -> None:
        """The client takes less than it is sent (asyncio.BaseProtocol)."""
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
        """The client said something (asyncio.Protocol)."""
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
        """The client is gone, or has said all: no half of TLS stays open (asyncio.BaseProtocol)."""
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
