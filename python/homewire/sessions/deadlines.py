"""Sessions of open connections that expire soon, and the keys with connections on this node."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple, Protocol

from homewire.auth.models import Principal, PrincipalKind
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.sessions.activity import SessionDeadline
from homewire.store.keys import DAY_MS

HORIZON_MS: Final = DAY_MS
"""Later deadlines are not kept: the next check of open connections, some minutes later, finds them again. So
a connection with a session of weeks costs nothing, and one that ends today some 400 bytes. During an outage
of Redis of up to a day, a node still knows which sessions have expired."""


class Deadlines:
    """Two generations of deadlines. A check of all connections begins a new one. A key that neither this nor
    the last check has seen has no connection any more, and is forgotten."""

    def __init__(self, clock: Clock = MACHINE_CLOCK) -> None:
        self._now_ms = clock.now_ms
        self._new, self._old = _Generation(), _Generation()
        self.sooner: Final = asyncio.Event()
        """Set when a deadline is added that is earlier than all others."""

    def observe(self, key: SocketKey, deadline: SessionDeadline) -> None:
        """Note the deadline of a key with an open connection."""
        known = self._old.remove(key) or self._new.remove(key)
        if known is not None and known.expires_ms > deadline.expires_ms > 0:
            # This deadline was read before the known one.
            deadline = known
        if 0 < deadline.expires_ms <= self._now_ms() + HORIZON_MS:
            next_ms = self.next_ms()
            self._new.put(key, deadline)
            if next_ms is None or deadline.expires_ms < next_ms:
                self.sooner.set()

    def update_if_known(self, key: SocketKey, deadline: SessionDeadline) -> None:
        """Note the deadline of a key that may have no connection, if the key is known."""
        if key in self:
            self.observe(key, deadline)

    def __contains__(self, key: SocketKey) -> bool:
        """Whether a deadline of the key is kept: it ends soon."""
        return key in self._new or key in self._old

    def begin_generation(self) -> None:
        """A check of all open connections begins, after a complete one."""
        self._old, self._new = self._new, _Generation()

    def due(self) -> list[tuple[SocketKey, SessionDeadline]]:
        """Remove and return the keys with a deadline in the past."""
        now = self._now_ms()
        return [*self._old.due(now), *self._new.due(now)]

    def next_ms(self) -> int | None:
        """A time (ms) before which no deadline is due; it may be that of a key that was forgotten."""
        return min(
            (seen.next_ms for seen in (self._old, self._new) if seen.next_ms is not None), default=None
        )

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._new) + len(self._old)


class _Generation:
    """Deadlines by key. A deadline that moves keeps its place in the heap until that time, and is put back
    then."""

    __slots__ = ("_deadlines", "_heap", "_placed")

    def __init__(self) -> None:
        self._deadlines: dict[SocketKey, SessionDeadline] = {}
        self._heap: list[tuple[int, SocketKey]] = []
        self._placed: set[SocketKey] = set()
        """The keys in the heap, forgotten ones, too."""

    def __contains__(self, key: SocketKey) -> bool:
        return key in self._deadlines

    def __len__(self) -> int:
        return len(self._deadlines)

    @property
    def next_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def put(self, key: SocketKey, deadline: SessionDeadline) -> None:
        self._deadlines[key] = deadline
        if key not in self._placed:
            self._placed.add(key)
            heappush(self._heap, (deadline.expires_ms, key))

    def remove(self, key: SocketKey) -> SessionDeadline | None:
        return self._deadlines.pop(key, None)

    def due(self, now: int) -> Iterator[tuple[SocketKey, SessionDeadline]]:
        while self._heap and self._heap[0][0] <= now:
            _, key = heappop(self._heap)
            deadline = self._deadlines.get(key)
            if deadline is not None and deadline.expires_ms > now:
                heappush(self._heap, (deadline.expires_ms, key))
                continue
            self._placed.remove(key)
            if deadline is not None:
                del self._deadlines[key]
                yield key, deadline


class SocketKey(NamedTuple):
    """A key with connections: of a user, or (node session) of a device."""

    project_id: int
    user_id: int
    key_tag: int
    device_id: int = 0

    @classmethod
    def of(cls, principal: Principal) -> SocketKey:
        """The key of a principal."""
        if principal.kind is PrincipalKind.USER:
            return cls(principal.project_id, principal.id, principal.key_tag)
        return cls(principal.project_id, 0, principal.key_tag, principal.id)


class ActiveKeySource(Protocol):
    """The part of the core that lists keys."""

    def active_keys(self, cursor: int, limit: int, /) -> None:
        """Request the keys of users with connections: `limit` places from `cursor` on. A notification
        answers."""


class ActiveKeys:
    """The keys with connections: those of users are listed by the core, others are remembered here.

    Remembered are connections of node sessions, because devices have thousands of other connections, and
    those of keys that end soon, which can be closed by their id.
    """

    def __init__(self) -> None:
        self._asked: asyncio.Future[tuple[int, set[SocketKey]]] | None = None
        self._keys: dict[int, SocketKey] = {}
        self._connections: dict[SocketKey, set[int]] = {}

    async def page(self, core: ActiveKeySource, cursor: int, limit: int) -> tuple[int, set[SocketKey]]:
        """The cursor of the next page, 0 after the last one, and the keys of this page."""
        self._asked = asyncio.get_running_loop().create_future()
        core.active_keys(cursor, limit)
        return await self._asked

    def on_page(self, cursor: int, keys: Sequence[tuple[int, int, int]]) -> None:
        """Handle the notification of the core."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result((cursor, {SocketKey(*key) for key in keys}))

    def remember(self, connection_id: int, key: SocketKey) -> None:
        """Remember a reserved connection until it is closed."""
        self._keys[connection_id] = key
        self._connections.setdefault(key, set()).add(connection_id)

    def closed(self, connection_id: int) -> None:
        """Forget a closed connection, if it was remembered."""
        key = self._keys.pop(connection_id, None)
        if key is not None:
            self._connections[key].remove(connection_id)
            if not self._connections[key]:
                del self._connections[key]

    def connections(self, key: SocketKey) -> Collection[int]:
        """The remembered connections of a key."""
        return tuple(self._connections.get(key, ()))

    def device_keys(self) -> list[SocketKey]:
        """The keys of node sessions."""
        return [key for key in self._connections if key.device_id]

    def __len__(self) -> int:
        """Number of remembered connections."""
        return len(self._keys)
