"""The listening sockets, and the header of the PROXY protocol.

A bounded number of connections is accepted in each turn of the loop; the others wait in the kernel's backlog.
asyncio and uvloop have no such bound: asyncio accepts as many in a turn as the backlog is long, and uvloop
all that wait. In a storm of reconnects nothing else would run.

A load balancer sends the header of the PROXY protocol, version 2, before the bytes of its client. Exactly the
header is read, so that TLS or HTTP begins behind it. The existing libraries need a stream server of their
own, and fail on a header that ends within its addresses.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

from homewire.errors import Unavailable
from homewire.limits.connections import network_of
from homewire.server.clients import Peer, TrustedProxies
from homewire.server.connections import UNCOUNTED, Connections, Place
from homewire.server.turns import Turns

logger = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
"""Seconds without accepting after descriptors or memory ran out."""
SETTING_UP_S: Final = 1.0
"""How long connections that were accepted just before the end have to be set up."""
SET_UP_AT_ONCE: Final = 8
"""Connections of one address that are set up at once. Each takes about 0.15 ms of the loop."""
SET_UP_TURN_S: Final = 0.01
"""A connection that takes longer waits for its client in the TLS handshake, so the next one may begin."""
WAITING: Final = 16_384
"""The most connections of one address that wait to be set up."""
ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Errors for an address that this machine does not have."""
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


MakeProtocol: TypeAlias = Callable[[Peer, Callable[[], None]], asyncio.Protocol]
"""Makes the protocol of a connection from its peer and a function to be called when it ended."""


def bound_sockets(addresses: Iterable[tuple[Any, ...]], port: int) -> list[socket.socket]:
    """A socket on each of the addresses (of getaddrinfo) that this machine has, all on one port.

    Addresses that this machine does not have are skipped: a name may have some of a family that is disabled,
    e.g. localhost in a container without IPv6. Raises OSError if none is left, or if bind fails otherwise.
    """
    bound: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        for family, kind, protocol, _, address in dict.fromkeys(addresses):
            try:
                opened = _bound_socket(family, kind, protocol, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                missing = error
            else:
                bound.append(opened)
                port = opened.getsockname()[1]
    except BaseException:
        for each in bound:
            each.close()
        raise
    if not bound:
        raise missing
    return bound


def _bound_socket(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
    except BaseException:
        opened.close()
        raise
    return opened


class Acceptor:
    """Accepts at most `per_turn` connections of each socket in a turn. Used from the event loop alone.

    `handshake_s` is the timeout of the PROXY protocol header and of the TLS handshake. With `proxy_protocol`
    every connection of one of the `proxies` must begin with such a header. A connection whose peer
    acknowledges nothing, or has no room for more, is reset after `timeout_s`. `unsent_bytes` is how many
    unsent bytes the kernel accepts for a socket; 0 is the kernel's default.
    """

    def __init__(
        self,
        per_turn: int,
        handshake_s: float,
        proxies: TrustedProxies | None = None,
        connections: Connections | None = None,
        *,
        proxy_protocol: bool = False,
        timeout_s: float = 0.0,
        unsent_bytes: int = 0,
    ) -> None:
        """Without `connections` their number has no bound."""
        self._per_turn = per_turn
        self._handshake_s = handshake_s
        self._proxies = TrustedProxies() if proxies is None else proxies
        self._proxy_protocol = proxy_protocol
        self._timeout_s = timeout_s
        self._unsent_bytes = unsent_bytes
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._connections = connections
        self._turns = Turns(
            SET_UP_AT_ONCE, queue=WAITING, wait_s=handshake_s, refusal=_too_many, longest_s=SET_UP_TURN_S
        )
        self._connecting: dict[asyncio.Task[None], None] = {}
        """The oldest first."""
        self._resumption: asyncio.TimerHandle | None = None
        self._make_protocol: MakeProtocol | None = None
        self._tls: ssl.SSLContext | None = None
        self._accepted = 0
        self._pauses = 0
        self._proxy_headers_refused = 0

    async def bind(self, host: str, port: int, backlog: int) -> int:
        """Listen on one port of every address of `host` that this machine has; "" for all. Returns the port.

        Raises OSError.
        """
        addresses = await self._loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self._sockets = bound_sockets(addresses, port)
        for listening in self._sockets:
            listening.setblocking(False)
            self._set_bounds(listening)
            listening.listen(backlog)
        return int(self._sockets[0].getsockname()[1])

    def start(self, make_protocol: MakeProtocol, tls: ssl.SSLContext | None = None) -> None:
        """Begin to accept. `make_protocol` makes the protocol of each connection."""
        self._make_protocol = make_protocol
        self._tls = tls
        self._resume()

    def use_tls(self, tls: ssl.SSLContext | None) -> None:
        """Use this TLS context for all connections that are accepted from now on."""
        self._tls = tls

    async def close(self) -> None:
        """Stop listening. Connections in the backlog are refused. Accepted ones stay open, and their next
        answer has `Connection: close`."""
        if self._connections is not None:
            self._connections.close()
        self._pause()
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()
        if self._connecting:
            # This takes one or two turns of the loop; only TLS handshakes take longer.
            _, unfinished = await asyncio.wait(self._connecting, timeout=SETTING_UP_S)
            for task in unfinished:
                task.cancel()

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {
            "accepted": self._accepted,
            "accept_pauses": self._pauses,
            "proxy_headers_refused": self._proxy_headers_refused,
        }

    def _set_bounds(self, listening: socket.socket) -> None:
        """Set the bounds of the kernel, which accepted sockets inherit."""
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._timeout_s and hasattr(socket, "TCP_USER_TIMEOUT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(self._timeout_s * 1000))
        if self._unsent_bytes and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self._unsent_bytes)

    def _resume(self) -> None:
        self._resumption = None
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _pause(self) -> None:
        for listening in self._sockets:
            self._loop.remove_reader(listening)
        if self._resumption is not None:
            self._resumption.cancel()
            self._resumption = None

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._per_turn):
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._wait_for_room(error)
                    return
                # The error concerns this connection alone: its client reset it before it was accepted.
                logger.info("a connection was not accepted: %s", error.strerror)
                continue
            self._admit(connection, address[0])

    def _admit(self, connection: socket.socket, address: str) -> None:
        """Set the connection up if there is room. This is checked before anything is allocated: one address
        may open many more connections than it may have."""
        connections, peer = self._connections, self._proxies.peer(address)
        if connections is not None and not connections.make_room(
            connection.fileno(), self._end_oldest_handshake
        ):
            connection.close()
        elif self._proxy_protocol and peer.proxies is not None:
            self._begin(connection, self._set_up_behind_header(connection, peer))
        elif (place := self._place(peer)) is None:
            assert connections is not None
            connections.refuse(connection)
        else:
            self._begin(connection, self._set_up(connection, peer, place))

    def _place(self, peer: Peer) -> Place | None:
        return UNCOUNTED if self._connections is None else self._connections.place(peer)

    def _wait_for_room(self, error: OSError) -> None:
        self._pauses += 1
        logger.error("no connection is accepted for %s s: %s", PAUSE_S, error.strerror)
        self._pause()
        self._resumption = self._loop.call_later(PAUSE_S, self._resume)

    def _begin(self, connection: socket.socket, setting_up: Coroutine[Any, Any, None]) -> None:
        self._accepted += 1
        connection.setblocking(False)
        task = self._loop.create_task(setting_up)
        self._connecting[task] = None
        task.add_done_callback(self._connected)

    async def _set_up_behind_header(self, connection: socket.socket, proxy: Peer) -> None:
        """Set the connection up for the client that a trusted proxy names. Raises OSError, MalformedHeader,
        TimeoutError."""
        try:
            async with asyncio.timeout(self._handshake_s):
                client = await read_client(connection)
        except (MalformedHeader, TimeoutError):
            self._proxy_headers_refused += 1
            connection.close()
            raise
        except BaseException:
            connection.close()
            raise
        peer = proxy if client is None else self._proxies.peer(client)
        place = self._place(peer)
        if place is None:
            connection.close()
            return
        await self._set_up(connection, peer, place)

    async def _set_up(self, connection: socket.socket, peer: Peer, place: Place) -> None:
        """Give the connection its protocol. Raises OSError if the connection failed before."""
        assert self._make_protocol is not None
        connecting = False
        try:
            # A trusted proxy has the connections of many clients, so they do not wait for each other.
            async with nullcontext() if peer.proxies else self._turns.of(network_of(peer.address)):
                connecting = True
                await self._loop.connect_accepted_socket(
                    partial(self._make_protocol, peer, place.leave),
                    connection,
                    ssl=self._tls,
                    ssl_handshake_timeout=None if self._tls is None else self._handshake_s,
                )
        except BaseException:
            place.leave()
            if not connecting:
                connection.close()
            raise

    def _end_oldest_handshake(self) -> bool:
        """End the connection whose TLS handshake or PROXY header takes longest. Returns whether there was
        one."""
        if self._tls is None and not self._proxy_protocol:
            return False
        for task in self._connecting:
            del self._connecting[task]
            task.cancel()
            return True
        return False

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, OSError | MalformedHeader | Unavailable):
            # The client closed the connection, or did not speak TLS. The error's text may quote what it sent.
            # Each health check of a balancer ends here.
            logger.debug("a connection failed before its first request: %s", type(error).__name__)
        elif error is not None:
            logger.error("a connection was not set up", exc_info=error)


def _too_many() -> Unavailable:
    return Unavailable(problem="too many connections of this address are being set up")


SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_HEADER: Final = struct.Struct("!12sBBH")
"""Signature, version and command, family and protocol, length of the rest."""
LONGEST: Final = 4096
"""Bytes of addresses and extensions. Balancers send a few hundred at most."""
VERSION: Final = 2
LOCAL, PROXY = 0, 1
ADDRESS_BYTES: Final = {1: 4, 2: 16}
"""Length of the client's address, which comes first, by family: IPv4 and IPv6."""
BOTH_ENDS_BYTES: Final = {1: 12, 2: 36}
LAST_FAMILY, LAST_PROTOCOL = 3, 2


class MalformedHeader(ValueError):
    """The received bytes are no header of version 2."""


async def read_client(connection: socket.socket) -> str | None:
    """Read the header from a connection. Returns the client's address.

    None if the client has no IP address, or if the balancer made the connection for itself, e.g. for a health
    check.
    Raises MalformedHeader, OSError.
    """
    signature, version_command, family_protocol, length = FIXED_HEADER.unpack(
        await _exactly(connection, FIXED_HEADER.size)
    )
    version, command = divmod(version_command, 16)
    family, protocol = divmod(family_protocol, 16)
    if signature != SIGNATURE or version != VERSION or command not in (LOCAL, PROXY):
        raise MalformedHeader
    if length > LONGEST or family > LAST_FAMILY or protocol > LAST_PROTOCOL:
        raise MalformedHeader
    rest = await _exactly(connection, length)
    if command == LOCAL or family not in ADDRESS_BYTES:
        return None
    if length < BOTH_ENDS_BYTES[family]:
        raise MalformedHeader
    address = ip_address(rest[: ADDRESS_BYTES[family]])
    return str(getattr(address, "ipv4_mapped", None) or address)


async def _exactly(connection: socket.socket, size: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    while len(received) < size:
        some = await loop.sock_recv(connection, size - len(received))
        if not some:
            raise MalformedHeader
        received += some
    return received
