"""Bounds of HTTP connections: for each address, for the descriptors of the node, and for slow request heads.

Connections of the core are limited by `ConnectionLimits`. An HTTP connection needs no key and takes a
descriptor, so one address could take all of them. Two bounds prevent that:

- An address has at most `most` connections, and at most a quarter of the descriptors for clients.
- The last `reserve` descriptors are for Redis, files and handoffs. When a new connection would take one of
them, the node closes another connection: the one that has been idle for longest, else the one whose request
head has been incomplete for longest. If there is none, the new connection is closed.

The kernel assigns the lowest free descriptor. So a number within the reserve tells that all others are in
use. Afterwards a lower number does not tell that the reserve is free, because connections that got a
descriptor of the reserve keep it. Until a count of all descriptors shows that it is free, each new connection
replaces another one.

A request head must be complete `timeout_s` after its first byte, also if the client sends a byte now and
then. All heads have the same timeout. So connections in the order of their first bytes are in the order of
their deadlines, and one timer is enough.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.limits.connections import network_of
from homewire.machine import open_file_limit
from homewire.server.clients import Peer

SHARE: Final = 4
"""An address has at most a quarter of the descriptors for clients; the reserve is at most a quarter of
all."""
COUNT_EVERY_S: Final = 1.0
REFUSAL_DELAY_S: Final = 1.0
"""The delay of a 429, and of closing a refused connection. A client that does not wait would otherwise repeat
its request at once, and a refusal costs the event loop as much as a small answer. The connections of the
client bound the number of delayed answers, `DelayedCloses` bounds the connections."""
DELAYED_CLOSES: Final = 1_024
DELAYED_SHARE: Final = 16
"""Refused connections that are open have at most a sixteenth of the descriptors."""
ADDRESS_LIMIT: Final = "address_tcp_connections"
RESERVE: Final = "descriptor_reserve"
EndOldest: TypeAlias = Callable[[], bool]


class Place:
    """The place of a connection among those of its address. It can be left once."""

    __slots__ = ("_connections", "_network")

    def __init__(self, connections: Connections | None, network: str) -> None:
        self._connections = connections
        self._network = network

    def leave(self) -> None:
        """The connection ended, or was handed to the core."""
        if self._connections is not None:
            self._connections.left(self._network)
            self._connections = None


UNCOUNTED: Final = Place(None, "")


class DelayedCloses:
    """Refused connections that will be closed. Used from the event loop alone."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: deque[tuple[float, socket.socket]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: socket.socket, most: int) -> None:
        """Close the connection in `REFUSAL_DELAY_S`. If more than `most` are open, the oldest is closed
        now."""
        self._open.append((self._loop.time() + REFUSAL_DELAY_S, connection))
        while len(self._open) > most:
            self.close_oldest()
        if self._timer is None and self._open:
            self._timer = self._loop.call_at(self._open[0][0], self._close_due)

    def close_oldest(self) -> bool:
        """Close the connection that was refused first. False if there is none."""
        if not self._open:
            return False
        self._open.popleft()[1].close()
        return True

    def close(self) -> None:
        """Close all refused connections."""
        while self.close_oldest():
            pass
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_due(self) -> None:
        now = self._loop.time()
        while self._open and self._open[0][0] <= now:
            self.close_oldest()
        self._timer = self._loop.call_at(self._open[0][0], self._close_due) if self._open else None


class Connections:
    """The connections of one port. Used from the event loop alone. With `most` 0 an address has no limit."""

    def __init__(
        self,
        header_timeout: RequestHeaderTimeout,
        most: int = 0,
        reserve: int = 0,
        refusals: Counter[str] | None = None,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        """`refusals` counts connections that were refused, by the setting of the limit."""
        self._header_timeout = header_timeout
        self._most = most
        self._reserve = reserve
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        self._refusals.update({ADDRESS_LIMIT: 0, RESERVE: 0})
        self._refused = DelayedCloses()
        self._held: dict[str, int] = {}
        self._idle: dict[Abortable, None] = {}
        """The connection that has been idle for longest comes first."""
        self.closing = False
        """Set when the node stops: then each answer is the last of its connection."""
        self._evicted = 0
        self._reserve_used = False
        """Whether a descriptor of the reserve was used, and no count has shown since that the reserve is
        free."""
        self._count_at = 0.0
        self._monotonic = clock.monotonic

    def has_place(self, peer: Peer) -> bool:
        """Whether the address of this peer may have one more connection.

        Connections of a trusted proxy are not counted, because they are of many clients.
        """
        if peer.proxies is not None or not self._most:
            return True
        if self._held.get(network_of(peer.address), 0) < min(self._most, self._descriptors() // SHARE):
            return True
        self._refusals[ADDRESS_LIMIT] += 1
        return False

    def place(self, peer: Peer) -> Place | None:
        """Take a place for a connection of this peer; None if its address has none left."""
        if not self.has_place(peer):
            return None
        if peer.proxies is not None or not self._most:
            return UNCOUNTED
        network = network_of(peer.address)
        self._held[network] = self._held.get(network, 0) + 1
        return Place(self, network)

    def refuse(self, connection: socket.socket) -> None:
        """Close a connection without a place after a delay."""
        self._refused.add(connection, min(DELAYED_CLOSES, self._descriptors() // DELAYED_SHARE))

    def close(self) -> None:
        """The port closes: each answer is the last one of its connection, and refused connections are
        closed."""
        self.closing = True
        self._refused.close()

    def left(self, network: str) -> None:
        """A connection from this network left its place."""
        held = self._held.pop(network) - 1
        if held:
            self._held[network] = held

    def make_room(self, descriptor: int, end_oldest: EndOldest) -> bool:
        """Whether a new connection with this descriptor can stay. Closes another connection if that is
        needed.

        `end_oldest` closes the connection with the oldest TLS handshake or PROXY header, and tells whether
        there was one.
        """
        ceiling = self._descriptors()
        if descriptor >= ceiling:
            self._reserve_used = True
        elif not self._reserve_used or self._has_room(ceiling):
            return True
        if self._refused.close_oldest():
            return True
        if self._idle:
            idlest = next(iter(self._idle))
            del self._idle[idlest]
            idlest.abort()
        elif not (self._header_timeout.abort_oldest() or end_oldest()):
            if descriptor < ceiling:
                return True
            self._refusals[RESERVE] += 1
            return False
        self._evicted += 1
        return True

    def _has_room(self, ceiling: int) -> bool:
        """Whether the reserve is free. Counts descriptors once a second at most: that takes some
        milliseconds."""
        now = self._monotonic()
        if now >= self._count_at:
            self._count_at = now + COUNT_EVERY_S
            self._reserve_used = len(os.listdir("/dev/fd")) >= ceiling
        return not self._reserve_used

    def became_idle(self, connection: Abortable) -> None:
        """A connection that is kept alive waits for its next request."""
        self._idle[connection] = None

    def became_busy(self, connection: Abortable) -> None:
        """A request of the connection begins, or the connection ended."""
        self._idle.pop(connection, None)

    def metrics(self) -> Mapping[str, int]:
        """Values of `metrics.GAUGES` and `metrics.COUNTERS`."""
        return {
            "connections_idle": len(self._idle),
            "connections_refused_open": len(self._refused),
            "connections_evicted": self._evicted,
        }

    def _descriptors(self) -> int:
        """The number of descriptors for clients. The limit of the process can change."""
        limit = open_file_limit()[0]
        return limit - min(self._reserve, limit // SHARE)


class Abortable(Protocol):
    """A connection that can be closed at once."""

    def abort(self) -> None:
        """Close the connection at once, without an answer."""
        ...


class RequestHeaderTimeout:
    """Closes connections whose request head is not complete in time. Used from the event loop alone."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[Abortable, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = 0

    def expect(self, connection: Abortable) -> None:
        """A head is expected from now on. No effect if one is expected already."""
        if connection in self._deadlines:
            return
        deadline = self._loop.time() + self._timeout_s
        self._deadlines[connection] = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._abort_late)

    def completed(self, connection: Abortable) -> None:
        """The head is complete, or the connection is gone."""
        self._deadlines.pop(connection, None)

    def abort_oldest(self) -> bool:
        """Close the connection whose head has been expected for longest. False if there is none."""
        for connection in self._deadlines:
            del self._deadlines[connection]
            connection.abort()
            return True
        return False

    def close(self) -> None:
        """Stop the timer."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()

    def metrics(self) -> Mapping[str, int]:
        """Values of `metrics.GAUGES` and `metrics.COUNTERS`."""
        return {"request_headers_awaited": len(self._deadlines), "request_headers_timed_out": self._timed_out}

    def _abort_late(self) -> None:
        self._timer = None
        now = self._loop.time()
        for connection, deadline in list(self._deadlines.items()):
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._abort_late)
                return
            del self._deadlines[connection]
            self._timed_out += 1
            connection.abort()
