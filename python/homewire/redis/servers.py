"""The servers of a Redis: one, or the masters of a Redis Cluster. Here every connection is opened.

A connection is opened in one way (`Servers.open`), whatever it is for: the server is found, the connection is
authenticated, and the server is asked which deployment it belongs to.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import structlog
from redis.exceptions import AuthenticationError, NoScriptError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from homewire.redis.address import RedisAddress
from homewire.redis.cluster import SLOTS, HostPort, Redirect, slot_of, slot_ranges
from homewire.redis.connection import CredentialsRefused, RedisConnection, exchange, open_connection
from homewire.redis.deployment import Identity, question

if TYPE_CHECKING:
    # redis-py takes long to import.
    from redis.asyncio import Redis

CONNECT_S: Final = 2.0
REFRESH_S: Final = 0.2
"""Minimum time between two questions for the slots."""
SLOTS_S: Final = 1.0
"""How long one server may take to tell the slots."""

_log = structlog.get_logger(__name__)


class Server:
    """One server. A server that comes back at its address is the same."""

    __slots__ = ("address",)

    def __init__(self, address: RedisAddress) -> None:
        self.address = address


class Servers:
    """Where the Redis at an address is. The clients of a node share one, and so what it knows of slots."""

    def __init__(self, address: RedisAddress) -> None:
        """Asks nothing yet."""
        self.address = address
        self.identity: Identity | None = None
        """Judges each new connection, if it is set."""
        self.ack_replicas = 0
        """How many replicas must confirm a change or an append, beside the server itself."""
        self.single: Final = None if address.cluster else Server(address)
        """The only server; None for a cluster."""
        self.on_change: Callable[[], None] | None = None
        """Called when the server of any slot changed."""
        self.redirects: dict[int, int] = {}
        """How often a command on a slot was redirected."""
        self._slots: list[Server | None] = [None] * SLOTS if address.cluster else []
        self._known: dict[HostPort, Server] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = float("-inf")
        self._connections: WeakSet[Connections] = WeakSet()

    # -- slots --

    def of_slot(self, slot: int) -> Server | None:
        """The server of a slot; None if no server is known to serve it."""
        return self._slots[slot]

    def masters(self) -> list[Server]:
        """All servers that serve slots, in the order of their slots."""
        return list(dict.fromkeys(each for each in self._slots if each is not None))

    def all(self) -> list[Server]:
        """The only server, or all masters."""
        return [self.single] if self.single is not None else self.masters()

    async def locate(self) -> None:
        """Make sure that the slots are known. Raises ConnectionError if no server tells them."""
        if self.single is None and not self._known:
            await self.refresh()
            if not self._known:
                raise ConnectionError("no server of the Redis Cluster tells its slots")

    async def refresh(self) -> None:
        """Ask for the slots again, at most every REFRESH_S. What cannot be learnt stays as it is."""
        if self.single is None:
            self.refresh_soon()
            assert self._refreshing is not None
            await asyncio.shield(self._refreshing)

    def refresh_soon(self) -> None:
        """The same in the background: after a redirect, and when a connection is lost or cannot be opened."""
        if self.single is None and self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="homewire-slots")

    def follow(self, redirect: Redirect, told_by: Server) -> Server:
        """The server that a redirect names, which has the slot from now on unless it is an ASK."""
        self.redirects[redirect.slot] = self.redirects.get(redirect.slot, 0) + 1
        server = self._at(redirect.host or told_by.address.host, redirect.port)
        if not redirect.is_ask:
            self._slots[redirect.slot] = server
            self._changed()
            # Other slots moved with it, probably.
            self.refresh_soon()
        return server

    def _at(self, host: str, port: int) -> Server:
        server = self._known.get((host, port))
        if server is None:
            server = self._known[host, port] = Server(self.address.at(host, port))
        return server

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(self._refreshed_at + REFRESH_S - loop.time())
            # In another order each time: one of them may be cut off from the others, and know old masters.
            asked = [*dict.fromkeys((*self._known, *self.address.cluster))]
            random.shuffle(asked)
            for host, port in asked:
                try:
                    async with asyncio.timeout(SLOTS_S):
                        ranges = await self._ask_slots(host, port)
                except (OSError, CredentialsRefused, ResponseError) as error:
                    _log.debug("cluster.slots_unknown", host=host, port=port, error=str(error))
                else:
                    self._take(ranges)
                    return
        finally:
            self._refreshed_at = loop.time()
            self._refreshing = None

    async def _ask_slots(self, host: str, port: int) -> list[tuple[int, int, HostPort]]:
        connection = await open_connection(self.address.at(host, port), _short_lived)
        try:
            (reply,) = await exchange(connection, ("CLUSTER", "SLOTS"))
        finally:
            connection.drop()
        if isinstance(reply, Exception):
            raise reply if isinstance(reply, OSError) else ConnectionError(str(reply))
        return [(first, last, (name or host, at)) for first, last, (name, at) in slot_ranges(reply)]

    def _take(self, ranges: list[tuple[int, int, HostPort]]) -> None:
        slots: list[Server | None] = [None] * SLOTS
        for first, last, (host, port) in ranges:
            slots[first : last + 1] = [self._at(host, port)] * (last + 1 - first)
        if slots == self._slots:
            return
        self._slots = slots
        masters = set(self.masters())
        self._known = {at: server for at, server in self._known.items() if server in masters}
        # A master that became a replica may become master again with another history.
        for each in self._connections:
            each.retire_others(masters)
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    # -- connections --

    async def open(self, server: Server, make: Callable[[], RedisConnection]) -> RedisConnection:
        """A connection that is authenticated, to a server of this deployment.

        Raises OSError (TimeoutError is one), and CredentialsRefused.
        """
        try:
            connection = await open_connection(server.address, make)
        except OSError:
            self.refresh_soon()
            raise
        try:
            await self._require_identity(server, connection)
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _require_identity(self, server: Server, connection: RedisConnection) -> None:
        identity = self.identity
        if identity is None:
            return
        if self.single is not None:
            (reply,) = await exchange(connection, question())
            identity.require(reply)
            return
        if not self._copies_at(server):
            # A new master, to which a redirect pointed.
            await self.refresh()
        for key in self._copies_at(server):
            (reply,) = await exchange(connection, question(key))
            if redirect := Redirect.of(reply):
                # The slot of this copy moves away.
                self.follow(redirect, server)
                continue
            if isinstance(reply, Exception):
                raise ConnectionError(f"the server does not tell its deployment: {reply}")
            identity.require(reply)
            return

    def _copies_at(self, server: Server) -> list[str]:
        assert self.identity is not None
        return [key for key in self.identity.copies if self._slots[slot_of(key)] is server]

    def identity_keys(self) -> list[str]:
        """Keys of the identity, one on each server that has any."""
        if self.single is not None or self.identity is None:
            return [question()[1]]
        return [copies[0] for each in self.masters() if (copies := self._copies_at(each))]

    def enter(self, connections: Connections) -> None:
        """Take the connections of a client into account."""
        self._connections.add(connections)

    async def leave(self, connections: Connections) -> None:
        """A client was closed; with the last one the search for slots ends."""
        self._connections.discard(connections)
        if not self._connections and self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def disconnect(self) -> None:
        """Close the connections of all clients; they open new ones, which are asked for their deployment."""
        for each in tuple(self._connections):
            each.drop()


class Connections:
    """The open connections of one client."""

    def __init__(self, servers: Servers) -> None:
        self.servers: Final = servers
        self.connection_class = RedisConnection
        self._open: dict[RedisConnection, Server] = {}
        self._is_closed = False
        servers.enter(self)

    @classmethod
    def of(cls, client: Redis) -> Connections:
        """Those of a client that `homewire.redis.connect` made."""
        found = getattr(client, "connections", None)
        assert isinstance(found, cls)
        return found

    async def open(self, server: Server, on_event: Callable[[RedisConnection], None]) -> RedisConnection:
        """A connection to `server`. Commands without a reply fail with redis-py's ConnectionError.

        Raises OSError (TimeoutError is one), redis-py's AuthenticationError, and its ConnectionError once the
        client is closed.
        """

        def changed(connection: RedisConnection) -> None:
            if connection.lost and self._open.pop(connection, None) is not None:
                self.servers.refresh_soon()
            on_event(connection)

        def make() -> RedisConnection:
            connection = self.connection_class(RedisConnectionError, changed, reply_error)
            self._open[connection] = server
            return connection

        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await self.servers.open(server, make)
        except CredentialsRefused as error:
            raise AuthenticationError(str(error)) from error
        if self._is_closed:
            # A command was still waiting for this connection.
            connection.drop()
            raise RedisConnectionError("the client of Redis is closed")
        return connection

    def retire_others(self, masters: set[Server]) -> None:
        """Close the connections to servers that are no masters, as soon as their replies have arrived."""
        for connection, server in tuple(self._open.items()):
            if server not in masters:
                connection.retire()

    def drop(self) -> None:
        """Close all connections now."""
        for connection in tuple(self._open):
            connection.drop()

    async def close(self) -> None:
        """Close all connections; the client is not used any more."""
        self._is_closed = True
        opened = tuple(self._open)
        # Forgotten first: their loss is no reason to ask for the slots.
        self._open.clear()
        for connection in opened:
            connection.drop()
        await self.servers.leave(self)
        # A transport closes its socket in the next turn of the event loop.
        await asyncio.sleep(0)


def _short_lived() -> RedisConnection:
    return RedisConnection(RedisConnectionError, lambda _: None, reply_error)


def reply_error(text: str) -> ResponseError:
    """The exception for an error reply."""
    # `AutoPipeline.run` catches NoScriptError; others compare texts.
    return (NoScriptError if text.startswith("NOSCRIPT") else ResponseError)(text.removeprefix("ERR "))
