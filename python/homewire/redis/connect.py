"""The client of Redis for everything that is not hot: redis-py's commands on homewire's connections.

A request is answered within 5 s while Redis is unavailable: a command waits at most `COMMAND_S` for a
connection and its reply.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from homewire.errors import NotConfirmed, Unavailable
from homewire.redis.address import parse_address
from homewire.redis.connection import Command
from homewire.redis.pipeline import AutoPipeline
from homewire.redis.server_pipeline import MAX_CONNECTIONS
from homewire.redis.servers import Connections, Servers

_AWAY: Final = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError)
# Refusals of a Redis that cannot serve for the moment; nothing was executed. MOVED and ASK are left of a
# command only while the servers of a cluster do not agree.
_NOT_NOW: Final = (
    *("ASK ", "BUSY ", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED ", "NOREPLICAS", "OOM "),
    *("READONLY", "TRYAGAIN"),
    # A command that waited, on a master that became a replica.
    "UNBLOCKED",
)


def connect(url: str, *, max_connections: int = MAX_CONNECTIONS) -> Redis:
    """A client of the Redis at `url` (see `homewire.redis.address`). Nothing is sent yet.

    At most `max_connections` go to each server. Close it with ``await client.aclose()``. Replies are bytes.
    Raises ConfigurationError for a URL that cannot be.
    """
    return Client(Servers(parse_address(url)), max_connections)


def share(client: Redis, *, max_connections: int = MAX_CONNECTIONS) -> Redis:
    """Another client of the same Redis, with connections of its own."""
    return Client(Connections.of(client).servers, max_connections)


class Client(Redis):
    """redis-py's commands, which are sent by an `AutoPipeline`. Neither transactions nor subscriptions."""

    def __init__(self, servers: Servers, max_connections: int) -> None:
        # The pool of redis-py stays empty. RESP3, its default, has other reply shapes.
        super().__init__(protocol=2, driver_info=None)
        self.connections: Final = Connections(servers)
        self.commands: Final = AutoPipeline(self, max_connections=max_connections)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        command = words(args)
        (reply,) = await self.commands.ask_raw([command], blocks="BLOCK" in command)
        return self.shaped(args[0], reply, options)

    def pipeline(self, transaction: bool = False, shard_hint: str | None = None) -> Pipeline:  # noqa: ARG002
        return _Commands(self)

    async def scan_iter(  # type: ignore[override]  # redis-py declares the one that blocks
        self, match: Any = None, count: int | None = None, _type: str | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        await self.connections.servers.locate()
        for server in self.connections.servers.all():
            cursor = 0
            while True:
                command: list[Any] = ["SCAN", cursor, *(("MATCH", match) if match is not None else ())]
                command += ["COUNT", count] if count is not None else []
                command += ["TYPE", _type] if _type is not None else []
                (reply,) = await self.commands.ask_raw([command], server=server)
                cursor, names = self.shaped("SCAN", reply, options)
                for name in names:
                    yield name
                if cursor == 0:
                    break

    def shaped(self, name: Any, reply: Any, options: dict[str, Any]) -> Any:
        """A reply as redis-py's commands return it. Raises the error that it is."""
        if isinstance(reply, ResponseError):
            raise reply
        options.pop("keys", None)
        shape = self.response_callbacks.get(name)
        return shape(reply, **options) if shape is not None else reply

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.connections.close()
        await super().aclose(close_connection_pool)


class _Commands(Pipeline):
    """Commands on keys of any slots, sent together."""

    def __init__(self, client: Client) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Their replies, with errors among them unless they are raised: then the first one."""
        commands, self.command_stack = self.command_stack, []
        replies = await self._client.commands.ask_raw([words(args) for args, _ in commands])
        for at, (args, options) in enumerate(commands):
            try:
                replies[at] = self._client.shaped(args[0], replies[at], dict(options))
            except ResponseError:
                if raise_on_error:
                    raise
        return replies


def words(args: tuple[Any, ...]) -> Command:
    """redis-py's own methods give names of two words ("CLIENT LIST") as one argument."""
    name = args[0]
    return (*name.split(), *args[1:]) if isinstance(name, str) and " " in name else args


async def ask_each_server(client: Redis, *command: Any) -> list[Any]:
    """The replies of all servers (of a Redis Cluster: of all masters) to a command without a key.

    Raises RedisError, OSError.
    """
    assert isinstance(client, Client)
    servers = client.connections.servers
    await servers.locate()
    replies = []
    for server in servers.all():
        (reply,) = await client.commands.ask_raw([words(command)], server=server)
        replies.append(client.shaped(command[0], reply, {}))
    return replies


async def each_server(client: Redis) -> AsyncIterator[tuple[str, Redis]]:
    """A client of each master of a Redis Cluster, and its address as text; else this client, without one.

    Raises OSError.
    """
    servers = Connections.of(client).servers
    await servers.locate()
    if servers.single is not None:
        yield "", client
    for server in servers.masters():
        async with Client(Servers(server.address), 1) as each:
            yield f"{server.address.host}:{server.address.port}", each


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


def _cannot_serve(error: RedisError) -> bool:
    return str(error).startswith(_NOT_NOW)
