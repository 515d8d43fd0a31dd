"""TCP connections that HTTP has: so many from an address, and room for others made when descriptors run out.

Sockets in the core are counted there (`ConnectionLimits`). Everything else costs a descriptor, needs no key,
so that one address could otherwise hold all of them. Two bounds stand against that:

- an address has at most `most` connections, and never more than a quarter of what descriptors allow;
- the last `reserve` descriptors are the node's own, for Redis, files and handoffs. A connection that would
  take one of them takes the place of another that does nothing: the one that has been idle for longest, else
  the one that has kept the node waiting for its request for longest. If there is none, it is closed.

The kernel gives the lowest free descriptor, hence a number within the reserve says that all others are in
use. A lower one says little afterwards, because what was let into the reserve stays: until a count shows
that there is room again, each new connection takes the place of another.

Connections whose next request head is awaited: for `timeout_s` from the first word, not from the last.

A client that sends a byte now and then is cut as one that sends none: nothing but the whole head counts.
All deadlines are equally far, so those who wait are in the order of their deadlines, and one timer
serves all of them.
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
"""An address gets at most this part of the descriptors that clients may have; so does the reserve of all."""
COUNT_EVERY_S: Final = 1.0
REFUSAL_DELAY_S: Final = 1.0
"""A 429 is answered this late, and a refused connection is closed this late: a client that does not wait
would come back at once, and a refusal costs the loop as much as a small answer. The client's connections
bound how many 429s are delayed, `DelayedCloses` bounds the connections."""
DELAYED_CLOSES: Final = 1_024
DELAYED_SHARE: Final = 16
"""Refused connections that are open have at most this part of the descriptors."""
ADDRESS_LIMIT: Final = "address_tcp_connections"
RESERVE: Final = "descriptor_reserve"
EndOldest: TypeAlias = Callable[[], bool]


class Place:
    """The place that one connection has among those of its address; given back once."""

    __slots__ = ("_connections", "_network")

    def __init__(self, connections: Connections | None, network: str) -> None:
        self._connections = connections
        self._network = network

    def leave(self) -> None:
        """The connection ended, or is not HTTP's any more."""
        if self._connections is not None:
            self._connections.left(self._network)
            self._connections = None


UNCOUNTED: Final = Place(None, "")


class DelayedCloses:
    """Refused connections until they are closed. Used from the event loop alone."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: deque[tuple[float, socket.socket]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: socket.socket, most: int) -> None:
        """Close the connection in `REFUSAL_DELAY_S`, or the oldest one now, so that no more than `most` are
        open."""
        self._open.append((self._loop.time() + REFUSAL_DELAY_S, connection))
        while len(self._open) > most:
            self.close_oldest()
        if self._timer is None and self._open:
            self._timer = self._loop.call_at(self._open[0][0], self._close_due)

    def close_oldest(self) -> bool:
        """Close the connection that was refused first; False if there is none."""
        if not self._open:
            return False
        self._open.popleft()[1].close()
        return True

    def close(self) -> None:
        """Close all of them."""
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
    """Those of one port. Used from the event loop alone. `most` 0: no limit for an address."""

    def __init__(
        self,
        header_timeout: RequestHeaderTimeout,
        most: int = 0,
        reserve: int = 0,
        refusals: Counter[str] | None = None,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        """`refusals` counts connections that were closed at once, by the setting."""
        self._header_timeout = header_timeout
        self._most = most
        self._reserve = reserve
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        self._refusals.update({ADDRESS_LIMIT: 0, RESERVE: 0})
        self._refused = DelayedCloses()
        self._held: dict[str, int] = {}
        self._idle: dict[Cuttable, None] = {}
        """Longest idle first."""
        self.closing = False
        """Whether the node ends: then each answer is the last of its connection."""
        self._closed_for_room = 0
        self._crowded = False
        """Whether the reserve was touched, and no count has shown since that it is free."""
        self._count_at = 0.0
        self._monotonic = clock.monotonic

    def has_place(self, peer: Peer) -> bool:
        """Whether the address of this peer may have one more connection.

        A trusted proxy carries the connections of many: they are not counted by its address.
        """
        if peer.proxies is not None or not self._most:
            return True
        if self._held.get(network_of(peer.address), 0) < min(self._most, self._descriptors() // SHARE):
            return True
        self._refusals[ADDRESS_LIMIT] += 1
        return False

    def place(self, peer: Peer) -> Place | None:
        """A place for a connection of this peer; None if its address has as many as it may."""
        if not self.has_place(peer):
            return None
        if peer.proxies is not None or not self._most:
            return UNCOUNTED
        network = network_of(peer.address)
        self._held[network] = self._held.get(network, 0) + 1
        return Place(self, network)

    def refuse(self, connection: socket.socket) -> None:
        """Close a connection that has no place, a little later."""
        self._refused.add(connection, min(DELAYED_CLOSES, self._descriptors() // DELAYED_SHARE))

    def close(self) -> None:
        """The port closes: each answer is the last of its connection, and refused connections are closed."""
        self.closing = True
        self._refused.close()

    def left(self, network: str) -> None:
        """A connection from this network gave up its place."""
        held = self._held.pop(network) - 1
        if held:
            self._held[network] = held

    def make_room(self, descriptor: int, end_oldest: EndOldest) -> bool:
        """Whether a new connection with this descriptor can stay, because there is room or some was made.

        `end_oldest` ends the connection that has been in its handshake for longest, if there is one.
        """
        ceiling = self._descriptors()
        if descriptor >= ceiling:
            self._crowded = True
        elif not self._crowded or self._has_room(ceiling):
            return True
        if self._refused.close_oldest():
            return True
        if self._idle:
            idlest = next(iter(self._idle))
            del self._idle[idlest]
            idlest.cut()
        elif not (self._header_timeout.cut_oldest() or end_oldest()):
            if descriptor < ceiling:
                return True
            self._refusals[RESERVE] += 1
            return False
        self._closed_for_room += 1
        return True

    def _has_room(self, ceiling: int) -> bool:
        """Count all descriptors, but seldom: it takes some milliseconds where there are many."""
        now = self._monotonic()
        if now >= self._count_at:
            self._count_at = now + COUNT_EVERY_S
            self._crowded = len(os.listdir("/dev/fd")) >= ceiling
        return not self._crowded

    def rests(self, connection: Cuttable) -> None:
        """A connection that is kept alive waits for its next request."""
        self._idle[connection] = None

    def stirs(self, connection: Cuttable) -> None:
        """A request begins, or the connection ended."""
        self._idle.pop(connection, None)

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {
            "connections_idle": len(self._idle),
            "connections_refused_open": len(self._refused),
            "connections_evicted": self._closed_for_room,
        }

    def _descriptors(self) -> int:
        """How many descriptors may be in use before the reserve is touched. The limit can change."""
        limit = open_file_limit()[0]
        return limit - min(self._reserve, limit // SHARE)


class Cuttable(Protocol):
    """A connection that can be ended."""

    def cut(self) -> None:
        """End it at once, without an answer."""
        ...


class RequestHeaderTimeout:
    """Cuts who does not complete a head in time. Used from the event loop alone."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[Cuttable, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = 0

    def expect(self, connection: Cuttable) -> None:
        """A head is awaited from now on; of no effect if it is already."""
        if connection in self._deadlines:
            return
        deadline = self._loop.time() + self._timeout_s
        self._deadlines[connection] = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._cut)

    def came(self, connection: Cuttable) -> None:
        """The head is complete, or the connection is gone."""
        self._deadlines.pop(connection, None)

    def cut_oldest(self) -> bool:
        """Cut the connection that has kept the node waiting for longest; False if none does."""
        for connection in self._deadlines:
            del self._deadlines[connection]
            connection.cut()
            return True
        return False

    def close(self) -> None:
        """Cut nobody any more."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"request_headers_awaited": len(self._deadlines), "request_headers_timed_out": self._timed_out}

    def _cut(self) -> None:
        self._timer = None
        now = self._loop.time()
        for connection, deadline in list(self._deadlines.items()):
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._cut)
                return
            del self._deadlines[connection]
            self._timed_out += 1
            connection.cut()
