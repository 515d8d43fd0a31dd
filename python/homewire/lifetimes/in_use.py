"""Which keys hold sockets on this node: what the core tells, and what has to be remembered beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from homewire.model import Principal, PrincipalKind


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


class KeyTeller(Protocol):
    """What is asked of the core."""

    def keys_in_use(self, cursor: int, limit: int, /) -> None:
        """Have it notify which users' keys hold connections, of `limit` places from `cursor` on."""


class KeysInUse:
    """Asks the core for the keys of users, and itself remembers the few connections that it does not tell of.

    Those are of node sessions, whose devices have other sockets by the thousand, and of keys that end soon:
    in case that nobody knows whether they do, each is told so by its id.
    """

    def __init__(self) -> None:
        self._asked: asyncio.Future[tuple[int, set[SocketKey]]] | None = None
        self._keys: dict[int, SocketKey] = {}
        self._connections: dict[SocketKey, set[int]] = {}

    async def part(self, core: KeyTeller, cursor: int, limit: int) -> tuple[int, set[SocketKey]]:
        """Where the next part begins, 0 behind the last, and the keys of this one."""
        self._asked = asyncio.get_running_loop().create_future()
        core.keys_in_use(cursor, limit)
        return await self._asked

    def answered(self, cursor: int, keys: Sequence[tuple[int, int, int]]) -> None:
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

    def of_devices(self) -> list[SocketKey]:
        """The keys of node sessions."""
        return [key for key in self._connections if key.device_id]

    def __len__(self) -> int:
        """How many connections are remembered."""
        return len(self._keys)
