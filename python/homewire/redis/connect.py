"""Clients of Redis: redis-py with a bounded pool, which also opens the connections of the pipelines.

A request is answered within 5 s while Redis is unavailable: it waits at most `POOL_WAIT_S` for a connection
and `COMMAND_S` for a command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.typing import EncodableT

from homewire.errors import NotConfirmed, Unavailable
from homewire.redis.address import RedisAddress, parse_address
from homewire.redis.connection import (
    PING_S,
    WRONG_SERVER,
    CredentialsRefused,
    RedisConnection,
    exchange,
    find_server,
    open_connection,
    pack,
    require_master,
)
from homewire.redis.deployment import QUESTION, Identity

if TYPE_CHECKING:
    # redis-py takes long to import.
    from redis.asyncio import Redis

CONNECT_S: Final = 2.0
COMMAND_S: Final = 4.0
POOL_WAIT_S: Final = 1.0
MAX_CONNECTIONS: Final = 32

_AWAY: Final = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError)
# Refusals of a Redis that cannot serve for the moment; nothing was executed. For some of them redis-py has
# classes, and removes the code from the message.
_NOT_NOW: Final = (
    "BUSY ",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM ",
    "READONLY",
    "TRYAGAIN",
    # A command that waited, on a master that became a replica.
    "UNBLOCKED",
)
_NOT_NOW_CLASSES: Final = frozenset(
    {"ClusterDownError", "MasterDownError", "OutOfMemoryError", "ReadOnlyError", "TryAgainError"}
)


_TURNED_AWAY_CLASSES: Final = frozenset({"MasterDownError", "ReadOnlyError"})


def connect(url: str, *, max_connections: int = MAX_CONNECTIONS) -> Redis:
    """A client with a bounded pool for `url` (see `homewire.redis.address`). Nothing is sent yet.

    Close it with ``await client.aclose()``. Replies are bytes. Raises ConfigurationError for a URL that
    cannot be.
    """
    address = parse_address(url)
    pool = Pool(
        **_connections(address),
        max_connections=max_connections,
        timeout=POOL_WAIT_S,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=COMMAND_S,
        # RESP3, the default, is slower and has other reply shapes.
        protocol=2,
        # redis-py repeats commands whose answer did not come, writes too. A write whose outcome
        # is unknown must not be repeated by us, so nothing is: the caller decides.
        retry=Retry(NoBackoff(), 0),
        # CLIENT SETINFO would cost each new connection two round trips.
        driver_info=None,
    )
    pool.address = address
    return Redis.from_pool(pool)


def _connections(address: RedisAddress) -> dict[str, Any]:
    """The class of the pool's connections, and where they go."""
    credentials = address.credentials
    options: dict[str, Any] = {
        "username": credentials.username or None,
        "password": credentials.password or None,
    }
    if address.path:
        return {**options, "connection_class": _UnixConnection, "path": address.path}
    options |= {"host": address.host, "port": address.port, "address": address}
    if address.tls is None:
        return {**options, "connection_class": _TcpConnection}
    tls = address.tls.options
    del tls["ssl"]
    return {**options, **tls, "connection_class": _TlsConnection}


class Pool(BlockingConnectionPool):
    """redis-py's pool, and the pipelined connections to the same server."""

    address: RedisAddress
    identity: Identity | None = None
    """Judges each new connection, if it is set."""
    pipelined_class: type[RedisConnection] = RedisConnection

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pipelined: set[RedisConnection] = set()

    @classmethod
    def of(cls, client: Redis) -> Pool:
        """The pool of a client that `connect` made."""
        pool = client.connection_pool
        assert isinstance(pool, Pool)
        return pool

    async def open_connection(self, on_event: Callable[[RedisConnection], None]) -> RedisConnection:
        """A pipelined connection. Commands without a reply fail with redis-py's ConnectionError.

        Raises OSError (TimeoutError is one), and redis-py's AuthenticationError.
        """

        def changed(connection: RedisConnection) -> None:
            if connection.lost:
                self._pipelined.discard(connection)
            on_event(connection)

        def make() -> RedisConnection:
            return self.pipelined_class(RedisConnectionError, changed, _reply_error)

        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await open_connection(self.address, make)
                self._pipelined.add(connection)
                try:
                    await self._require_identity(connection)
                except BaseException:
                    connection.drop()
                    raise
        except CredentialsRefused as error:
            raise AuthenticationError(str(error)) from error
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect again if a connection was idle for so long that a firewall may have forgotten it, or if
        its server refused to serve: another one may be the master now."""
        assert isinstance(connection, _PackedByHiredis)
        is_old = connection.is_refused or monotonic() - connection.used_at > PING_S
        if connection.is_connected and is_old:
            await connection.disconnect()
        is_new = not connection.is_connected
        await super().ensure_connection(connection)
        if is_new and self.identity is not None:
            await connection.send_command(*QUESTION)
            try:
                reply = await connection.read_response()
            except ResponseError as error:
                reply = error
            try:
                self._require_admission(self.identity, reply)
            except RedisConnectionError:
                await connection.disconnect()
                raise

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections, the pipelined ones, too."""
        for connection in tuple(self._pipelined):
            connection.drop()
        await super().disconnect(inuse_connections)

    async def _require_identity(self, connection: RedisConnection) -> None:
        if self.identity is not None:
            (reply,) = await exchange(connection, QUESTION)
            self._require_admission(self.identity, reply)

    @staticmethod
    def _require_admission(identity: Identity, reply: Any) -> None:
        if problem := identity.admit(reply):
            raise RedisConnectionError(problem)


def _reply_error(text: str) -> ResponseError:
    # `AutoPipeline.run` catches NoScriptError; `_cannot_serve` compares texts.
    return (NoScriptError if text.startswith("NOSCRIPT") else ResponseError)(text.removeprefix("ERR "))


class _PackedByHiredis:
    """redis-py's asyncio connections build commands in Python: 1.2 ms for 1,000 arguments; this 0.06."""

    used_at = 0.0
    """When the last command was sent, by `time.monotonic`."""
    is_refused = False
    """Whether the server refused to serve since the connection was opened."""

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        self.used_at = monotonic()
        name = args[0]
        # redis-py's own methods give names of two words ("CLIENT LIST") as one argument.
        words = (*name.split(), *args[1:]) if isinstance(name, str) and " " in name else args
        return [pack(words)]

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*args, **options)  # type: ignore[misc]  # of redis-py's class
        except RuntimeError as error:
            # What uvloop raises for a transport that was closed since the last reply.
            raise RedisConnectionError("the connection was closed") from error

    async def _connect(self) -> None:
        self.is_refused = False
        await super()._connect()  # type: ignore[misc]

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc]
        except ResponseError as error:
            self.is_refused = self.is_refused or _is_turned_away(error)
            raise


class _ToServer(_PackedByHiredis):
    """A connection by TCP, to the present master if `address` names Sentinels."""

    def __init__(self, *, address: RedisAddress, **options: Any) -> None:
        super().__init__(**options)
        self._address = address

    async def _connect(self) -> None:
        async with asyncio.timeout(CONNECT_S):
            self.host, self.port = await find_server(self._address)
        await super()._connect()

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)  # type: ignore[misc]
        if self._address.sentinels is not None:
            await self.send_command("ROLE", check_health=False)  # type: ignore[attr-defined]
            try:
                require_master(await self.read_response())
            except ConnectionError as error:
                raise RedisConnectionError(str(error)) from error


class _TcpConnection(_ToServer, Connection):
    pass


class _TlsConnection(_ToServer, SSLConnection):
    pass


class _UnixConnection(_PackedByHiredis, UnixDomainSocketConnection):
    pass


class translate_redis_errors:
    """Raise `errors.Unavailable` for errors of redis-py that mean that Redis is unreachable or cannot serve.

    With `writing`, a broken connection or a time-out becomes `errors.NotConfirmed`: the command may
    have been executed. Everything else (a wrong command, a bug in a script) passes through.
    """

    __slots__ = ("_writing",)

    def __init__(self, *, writing: bool = False) -> None:
        self._writing = writing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, _AWAY):
            raise (NotConfirmed() if self._writing else Unavailable()) from error
        if isinstance(error, ResponseError) and _cannot_serve(error):
            raise Unavailable() from error


def _is_turned_away(error: ResponseError) -> bool:
    return type(error).__name__ in _TURNED_AWAY_CLASSES or str(error).startswith(WRONG_SERVER)


def _cannot_serve(error: RedisError) -> bool:
    return type(error).__name__ in _NOT_NOW_CLASSES or str(error).startswith(_NOT_NOW)
