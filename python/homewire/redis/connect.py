"""Connections to Redis: for everything ordinary, and lines for what many wait for.

Redis being away must be answered within 5 s: a connection is waited for `POOL_WAIT_S`, and one
command as a whole at most `COMMAND_S`, which the store adds up to.
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
from homewire.redis.connection import (
    PING_S,
    RedisAddress,
    RedisConnection,
    exchange,
    open_connection,
    pack,
    parse_address,
)
from homewire.redis.deployment import QUESTION, Identity

if TYPE_CHECKING:
    # Who only starts the embedded server has no use for redis-py, which takes long to import.
    from redis.asyncio import Redis

CONNECT_S: Final = 2.0
COMMAND_S: Final = 4.0
POOL_WAIT_S: Final = 1.0
MAX_CONNECTIONS: Final = 32

_AWAY: Final = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError)
# What a Redis that is there says when it cannot serve for the moment; nothing was executed.
# redis-py makes classes of some of these and strips the code from the message, others it leaves.
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
)
_NOT_NOW_CLASSES: Final = frozenset(
    {"ClusterDownError", "MasterDownError", "OutOfMemoryError", "ReadOnlyError", "TryAgainError"}
)


def connect(url: str, *, max_connections: int = MAX_CONNECTIONS) -> Redis:
    """A client with a bounded pool for `url` (redis://, rediss:// or unix://). Nothing is sent yet.

    Close it with ``await client.aclose()``. Replies are bytes. Raises ConfigurationError for a URL that
    cannot be.
    """
    pool: Pool = Pool.from_url(
        url,
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
    pool.connection_class = _PACKED[pool.connection_class]
    pool.address = parse_address(url)
    return Redis.from_pool(pool)


class Pool(BlockingConnectionPool):
    """redis-py's pool, and beside its connections the lines to the same server."""

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
        """A line that is ready for commands. What gets no reply is a redis-py ConnectionError.

        Raises OSError (TimeoutError is one), and redis-py's AuthenticationError.
        """

        def changed(connection: RedisConnection) -> None:
            if connection.lost:
                self._pipelined.discard(connection)
            on_event(connection)

        def make() -> RedisConnection:
            return self.pipelined_class(RedisConnectionError, changed, _reply_error)

        async with asyncio.timeout(CONNECT_S):
            connection = await open_connection(self.address, make)
            self._pipelined.add(connection)
            try:
                await self._authenticate(connection)
                if self.identity is not None:
                    (reply,) = await exchange(connection, QUESTION)
                    self._require_admission(self.identity, reply)
            except BaseException:
                connection.drop()
                raise
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect again if a connection was idle for so long that a firewall may have forgotten it."""
        assert isinstance(connection, _PackedByHiredis)
        if connection.is_connected and monotonic() - connection.used_at > PING_S:
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
        """All connections, and all lines."""
        for connection in tuple(self._pipelined):
            connection.drop()
        await super().disconnect(inuse_connections)

    @staticmethod
    def _require_admission(identity: Identity, reply: Any) -> None:
        if problem := identity.admit(reply):
            raise RedisConnectionError(problem)

    async def _authenticate(self, connection: RedisConnection) -> None:
        if self.address.authentication:
            (reply,) = await exchange(connection, self.address.authentication)
            if isinstance(reply, Exception):
                raise AuthenticationError("Redis refused the credentials of its URL")


def _reply_error(text: str) -> ResponseError:
    # Of redis-py's classes one is asked for; `_cannot_serve` goes by the texts.
    return (NoScriptError if text.startswith("NOSCRIPT") else ResponseError)(text.removeprefix("ERR "))


class _PackedByHiredis:
    """redis-py's asyncio connections build commands in Python: 1.2 ms for 1,000 arguments; this 0.06."""

    used_at = 0.0
    """When the last command was sent, by `time.monotonic`."""

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


class _TcpConnection(_PackedByHiredis, Connection):
    pass


class _TlsConnection(_PackedByHiredis, SSLConnection):
    pass


class _UnixConnection(_PackedByHiredis, UnixDomainSocketConnection):
    pass


_PACKED: Final = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _UnixConnection,
}


class translate_redis_errors:
    """Turn what redis-py raises when Redis is away or cannot serve into `errors.Unavailable`.

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


def _cannot_serve(error: RedisError) -> bool:
    return type(error).__name__ in _NOT_NOW_CLASSES or str(error).startswith(_NOT_NOW)
