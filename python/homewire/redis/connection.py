"""A pipelined connection to Redis: finds its server, authenticates, writes commands, reads replies in order.

Used for the appends of events (`bus/append.py`) and by `AutoPipeline` (`redis/pipeline.py`): redis-py waits
for each reply separately, which costs more than the reply.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias, cast

from hiredis import HiredisError, Reader, ReplyError, pack_command
from redis.typing import EncodableT

from homewire.errors import ConfigurationError
from homewire.redis.address import RedisAddress

Argument: TypeAlias = EncodableT
Command: TypeAlias = Sequence[Argument]

WRITE_BUFFER_BYTES = 1024 * 1024
"""With more unsent bytes `RedisConnection.writable` is false, because Redis does not read."""

PING_S = 15.0
"""After this time without commands a connection sends PING. A firewall that forgets idle connections after
half a minute keeps this one."""

SENTINEL_S: Final = 0.5
"""How long a Sentinel may take to accept a connection, and to answer."""
WRONG_SERVER: Final = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH")
"""Refusals by which a server says that it is the wrong one for now."""

_NO_REPLY_YET: Final = object()


def pack(command: Command) -> bytes:
    """A command as bytes, by hiredis: redis-py takes 1.2 ms for 1,000 arguments, this 0.06."""
    packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]  # its stub asks for a 1-tuple
    return packed


class PendingWrite(Protocol):
    """Commands of one write, and their replies."""

    data: bytes
    expected: int
    """Replies, one for each command."""
    deadline: float
    """Loop time of the timeout."""
    replies: list[Any]
    """The replies so far. An error reply is an exception in the place of the reply."""

    def settle(self, failure: Exception | None = None) -> None:
        """All replies have arrived or, with `failure`, no more will arrive."""


class RedisConnection(asyncio.Protocol):
    """A hiredis reader on a transport.

    `on_event` is called when the connection becomes writable again, and when it is lost.
    """

    def __init__(
        self,
        failure: type[Exception],
        on_event: Callable[[RedisConnection], None],
        reply_error: Callable[[str], Exception] = ReplyError,
    ) -> None:
        """`failure` is raised, without arguments, for commands that get no reply. `reply_error` makes the
        exception for an error reply."""
        self.written: deque[PendingWrite] = deque()
        self.lost = False
        self._reader = Reader(replyError=self._error, notEnoughData=_NO_REPLY_YET)
        self._reply_error = reply_error
        self._failure = failure
        self._on_event = on_event
        self._paused = False
        self._retired = False
        """Whether it is closed as soon as all replies have arrived."""
        self._transport: asyncio.Transport | None = None
        self._is_used = False
        """Whether anything was written since the last check."""
        self._ping: PendingReplies | None = None
        self._check_timer: asyncio.TimerHandle | None = None

    @property
    def writable(self) -> bool:
        """Whether a write now would be sent soon."""
        return not (self._paused or self._retired or self.lost)

    def write(self, writes: Collection[PendingWrite]) -> None:
        """Send all commands in one write. On a lost connection they fail at once."""
        assert self._transport is not None
        self._is_used = True
        data = b"".join([pending.data for pending in writes])
        for pending in writes:
            pending.data = b""  # the transport has its own copy; hold one, not two, until the reply
        self.written.extend(writes)
        if self.lost:
            self._fail_written()
        else:
            self._transport.write(data)

    def drop(self) -> None:
        """Close the connection now. Written commands without a reply are not confirmed."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def retire(self) -> None:
        """Close the connection as soon as all replies have arrived. Nothing more is written on it."""
        self._retired = True
        if not self.written:
            self.drop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, no isinstance: uvloop's transports are not asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if self.lost:  # It was dropped before it was connected.
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._schedule_check()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            is_understood = self._hand_out(iter(self._reader.gets, _NO_REPLY_YET))
        except HiredisError:
            is_understood = False
        if not is_understood or (self._retired and not self.written):
            self.drop()

    def _error(self, text: str) -> Exception:
        """The error of a reply. After a refusal the next connection may reach a server that serves."""
        if text.startswith(WRONG_SERVER):
            self._retired = True
        return self._reply_error(text)

    def _hand_out(self, replies: Iterator[Any]) -> bool:
        """Assign replies to their commands. Whether there is a command for each."""
        written = self.written
        while written:
            pending = written[0]
            # In one step of C: a bulk append has a thousand replies.
            pending.replies.extend(islice(replies, pending.expected - len(pending.replies)))
            if len(pending.replies) < pending.expected:
                return True
            written.popleft().settle()
        return next(replies, _NO_REPLY_YET) is _NO_REPLY_YET

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._on_event(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _schedule_check(self) -> None:
        self._is_used = False
        self._check_timer = asyncio.get_running_loop().call_later(PING_S, self._check_idle)

    def _check_idle(self) -> None:
        """Send PING on an idle connection, and close it if the last PING has no reply."""
        if self._ping is not None and not self._ping.waiter.done():
            self.drop()
            return
        self._ping = None
        if not self._is_used and not self.written:
            self._ping = PendingReplies(pack(("PING",)), 1)
            self.write([self._ping])
        self._schedule_check()

    def _end(self) -> None:
        if self.lost:
            return
        self.lost = True
        if self._check_timer is not None:
            self._check_timer.cancel()
        self._fail_written()
        self._on_event(self)

    def _fail_written(self) -> None:
        while self.written:
            self.written.popleft().settle(self._failure())


class CredentialsRefused(ConfigurationError):
    """Redis refused the credentials of its URL."""


async def open_connection(address: RedisAddress, make: Callable[[], RedisConnection]) -> RedisConnection:
    """An authenticated connection, to the present master if the address names Sentinels.

    Raises OSError (ssl.SSLError and TimeoutError are), and CredentialsRefused.
    """
    connection = await _connect(address, make)
    try:
        if address.credentials.command:
            (reply,) = await exchange(connection, address.credentials.command)
            if connection.lost:
                raise ConnectionError("Redis closed the connection")
            if isinstance(reply, Exception):
                raise CredentialsRefused("Redis refused the credentials of its URL")
        if address.sentinels is not None:
            (role,) = await exchange(connection, ("ROLE",))
            require_master(role)
    except BaseException:
        connection.drop()
        raise
    return connection


async def _connect(address: RedisAddress, make: Callable[[], RedisConnection]) -> RedisConnection:
    loop = asyncio.get_running_loop()
    if address.path:
        _, connection = await loop.create_unix_connection(make, address.path)
        return connection
    host, port = await find_server(address)
    tls = address.tls.context if address.tls else None
    _, connection = await loop.create_connection(make, host, port, ssl=tls)
    return connection


async def find_server(address: RedisAddress) -> tuple[str, int]:
    """Host and port to connect to: Sentinels are asked for each connection. Raises OSError."""
    sentinels = address.sentinels
    if sentinels is None:
        return address.host, address.port
    # Imported at use: it takes long, and few deployments need it.
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

    tls = address.tls
    client = Sentinel(  # type: ignore[no-untyped-call]
        sentinels.nodes,
        sentinel_kwargs={
            "username": sentinels.credentials.username or None,
            "password": sentinels.credentials.password or None,
            "socket_connect_timeout": SENTINEL_S, "socket_timeout": SENTINEL_S,
            "protocol": 2, "retry": Retry(NoBackoff(), 0), "driver_info": None,
            **(tls.options if tls else {}),
        },
    )  # fmt: skip
    try:
        host, port = await client.discover_master(sentinels.name)
    except RedisError as error:
        raise ConnectionError(f"no Sentinel names a master {sentinels.name}") from error
    finally:
        for each in client.sentinels:
            await each.aclose()
    return host, int(port)


def require_master(role: Any) -> None:
    """Raise ConnectionError unless a reply to ROLE is that of a master: a Sentinel may not know it yet."""
    if not isinstance(role, list) or role[0] != b"master":
        raise ConnectionError("the server that Sentinel names is no master")


class PendingReplies:
    """The commands of one caller. The result of `waiter` is the list of `replies`, one for each command, and
    never an exception: one object and one wake-up for any number of commands."""

    __slots__ = ("data", "deadline", "expected", "replies", "waiter")

    def __init__(self, data: bytes, expected: int, deadline: float = math.inf) -> None:
        """`deadline`: loop time of the timeout."""
        self.data = data
        self.expected = expected
        self.deadline = deadline
        self.replies: list[Any] = []
        self.waiter: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def settle(self, failure: Exception | None = None) -> None:
        """Wake the caller, which may have been cancelled. Commands without a reply get `failure`."""
        if failure is not None:
            self.replies.extend([failure] * (self.expected - len(self.replies)))
        if not self.waiter.done():
            self.waiter.set_result(self.replies)


async def exchange(connection: RedisConnection, *commands: Command) -> list[Any]:
    """The replies to commands. An error reply is an exception in the place of the reply."""
    pending = PendingReplies(b"".join([pack(command) for command in commands]), len(commands))
    connection.write([pending])
    return await pending.waiter
