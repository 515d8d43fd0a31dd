"""When the keys of open sockets end, as far as that is soon.

Which keys hold sockets on this node: what the core tells, and what has to be remembered beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple, Protocol

from homewire.auth.models import Principal, PrincipalKind
from homewire.sessions.activity import SessionDeadline
from homewire.store.database import wall_clock_ms
from homewire.store.keys import DAY_MS

HORIZON_MS: Final = DAY_MS
"""What ends later is not kept here: the next look at open sockets, some minutes from now, finds it again. So
a socket whose session lives for weeks costs nothing, and one that ends today some 400 bytes. A day, because
for so long a node whose Redis is away still knows which of its sockets are over."""


class Deadlines:
    """Two generations of what was seen: a look at all sockets begins a new one, and what neither it nor the
    one before has seen is forgotten with its sockets."""

    def __init__(self, clock: Callable[[], int] = wall_clock_ms) -> None:
        self._clock = clock
        self._new, self._old = _Generation(), _Generation()
        self.sooner: Final = asyncio.Event()
        """Set when something is kept that may be over before all others."""

    def observe(self, key: SocketKey, deadline: SessionDeadline) -> None:
        """A socket is open with this key, whose session stands so."""
        known = self._old.remove(key) or self._new.remove(key)
        if known is not None and known.expires_ms > deadline.expires_ms > 0:
            # Read earlier, and answered later.
            deadline = known
        if 0 < deadline.expires_ms <= self._clock() + HORIZON_MS:
            next_ms = self.next_ms()
            self._new.put(key, deadline)
            if next_ms is None or deadline.expires_ms < next_ms:
                self.sooner.set()

    def update_if_known(self, key: SocketKey, deadline: SessionDeadline) -> None:
        """The same of a key that may have no socket: what is not known here is not kept either."""
        if key in self:
            self.observe(key, deadline)

    def __contains__(self, key: SocketKey) -> bool:
        """Whether a key is kept here: it ends soon."""
        return key in self._new or key in self._old

    def begin_generation(self) -> None:
        """A look at all open sockets begins, and the last one had come to its end."""
        self._old, self._new = self._new, _Generation()

    def due(self) -> list[tuple[SocketKey, SessionDeadline]]:
        """The keys that are past what is known of their end. Each is answered once."""
        now = self._clock()
        return [*self._old.due(now), *self._new.due(now)]

    def next_ms(self) -> int | None:
        """The time before which none is due; it may be one that was forgotten meanwhile."""
        return min(
            (seen.next_ms for seen in (self._old, self._new) if seen.next_ms is not None), default=None
        )

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._new) + len(self._old)


class _Generation:
    """Keys by their end. One that slides keeps its place in the heap, and gets the next when that comes."""

    __slots__ = ("_deadlines", "_heap", "_placed")

    def __init__(self) -> None:
        self._deadlines: dict[SocketKey, SessionDeadline] = {}
        self._heap: list[tuple[int, SocketKey]] = []
        self._placed: set[SocketKey] = set()
        """Those that are in the heap, known or forgotten."""

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
    """A key that holds sockets: of a user, or (a node session) of a device."""

    project_id: int
    user_id: int
    key_tag: int
    device_id: int = 0

    @classmethod
    def of(cls, principal: Principal) -> SocketKey:
        """The key of somebody who connects."""
        if principal.kind is PrincipalKind.USER:
            return cls(principal.project_id, principal.id, principal.key_tag)
        return cls(principal.project_id, 0, principal.key_tag, principal.id)


class ActiveKeySource(Protocol):
    """What is asked of the core."""

    def keys_in_use(self, cursor: int, limit: int, /) -> None:
        """Have it notify which users' keys hold connections, of `limit` places from `cursor` on."""


class ActiveKeys:
    """Asks the core for the keys of users, and itself remembers the few connections that it does not tell of.

    Those are of node sessions, whose devices have other sockets by the thousand, and of keys that end soon:
    in case that nobody knows whether they do, each is told so by its id.
    """

    def __init__(self) -> None:
        self._asked: asyncio.Future[tuple[int, set[SocketKey]]] | None = None
        self._keys: dict[int, SocketKey] = {}
        self._connections: dict[SocketKey, set[int]] = {}

    async def page(self, core: ActiveKeySource, cursor: int, limit: int) -> tuple[int, set[SocketKey]]:
        """Where the next part begins, 0 behind the last, and the keys of this one."""
        self._asked = asyncio.get_running_loop().create_future()
        core.keys_in_use(cursor, limit)
        return await self._asked

    def on_page(self, cursor: int, keys: Sequence[tuple[int, int, int]]) -> None:
        """The core's answer."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result((cursor, {SocketKey(*key) for key in keys}))

    def remember(self, connection_id: int, key: SocketKey) -> None:
        """A connection is reserved, until it is told closed."""
        self._keys[connection_id] = key
        self._connections.setdefault(key, set()).add(connection_id)

    def closed(self, connection_id: int) -> None:
        """A connection ended; most are not known here."""
        key = self._keys.pop(connection_id, None)
        if key is not None:
            self._connections[key].remove(connection_id)
            if not self._connections[key]:
                del self._connections[key]

    def connections(self, key: SocketKey) -> Collection[int]:
        """Those of a key that are remembered."""
        return tuple(self._connections.get(key, ()))

    def device_keys(self) -> list[SocketKey]:
        """The keys of node sessions."""
        return [key for key in self._connections if key.device_id]

    def __len__(self) -> int:
        """How many connections are remembered."""
        return len(self._keys)
