"""One connection to Redis: the address in a URL, and commands written and replies read in order.

For the ways that many commands take (`bus/append.py`, `redis/pipeline.py`): redis-py awaits each reply by
itself, which costs more than the reply.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from hiredis import HiredisError, Reader, ReplyError, pack_command
from redis.typing import EncodableT

from homewire.errors import ConfigurationError

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A TCP address (`host`, `port`) or a unix socket (`path`), with credentials and TLS."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def authentication(self) -> tuple[str, ...]:
        """The AUTH command, or nothing when the URL has no password."""
        if not self.password:
            return ()
        return ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)


def parse_address(url: str) -> RedisAddress:
    """Read `redis://[user:pass@]host[:port]`, `rediss://…` or `unix://[user:pass@]/path`.

    Raises ConfigurationError; its message never repeats the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError("the Redis URL has no valid host and port") from error
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        if not parts.path:
            raise ConfigurationError("a unix:// Redis URL needs the path of the socket")
        return RedisAddress(path=unquote(parts.path), username=username, password=password)
    if parts.scheme not in ("redis", "rediss"):
        raise ConfigurationError("the Redis URL must begin with redis://, rediss:// or unix://")
    if parts.path not in ("", "/", "/0"):
        raise ConfigurationError("homewire uses database 0 only: leave the path out of the Redis URL")
    tls = _tls_context(parts) if parts.scheme == "rediss" else None
    return RedisAddress(parts.hostname or "localhost", port, "", username, password, tls)


def _tls_context(parts: SplitResult) -> ssl.SSLContext:
    """The same query parameters as redis-py, so that one URL serves both clients."""
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    try:
        context = ssl.create_default_context(cafile=query.get("ssl_ca_certs"))
        if "ssl_certfile" in query:
            context.load_cert_chain(query["ssl_certfile"], query.get("ssl_keyfile"))
    except OSError as error:
        raise ConfigurationError("a certificate file named in the Redis URL cannot be read") from error
    if query.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


Argument: TypeAlias = EncodableT
Command: TypeAlias = Sequence[Argument]

WRITE_BUFFER_BYTES = 1024 * 1024
"""Beyond this a Redis that does not read gets no more, if the caller looks at `RedisConnection.writable`."""

PING_S = 15.0
"""How long a line may be silent before it asks Redis for a PONG. A firewall that forgets connections after
four minutes, or after half a minute, sees this one in use."""

_NO_REPLY_YET: Final = object()


def pack(command: Command) -> bytes:
    """A command as bytes, by hiredis: redis-py takes 1.2 ms for 1,000 arguments, this 0.06."""
    packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]  # its stub asks for a 1-tuple
    return packed


class Batch(Protocol):
    """Commands that are written together, and what becomes of them."""

    data: bytes
    expected: int
    """Replies, one for each command."""
    deadline: float
    """Loop time by which Redis must have answered."""
    replies: list[Any]
    """Those that came; an error that Redis answered with stands in the place of its reply."""

    def settle(self, failure: Exception | None = None) -> None:
        """All replies are there; or, with `failure`, no more will come."""


class RedisConnection(asyncio.Protocol):
    """A hiredis reader on a transport. `on_event` is called when it may be written to again and when
    it is gone; what of the two, `writable` and `lost` tell."""

    def __init__(
        self,
        failure: type[Exception],
        on_event: Callable[[RedisConnection], None],
        reply_error: Callable[[str], Exception] = ReplyError,
    ) -> None:
        """`failure` is made, without arguments, where there will be no reply to what was written;
        `reply_error` of what Redis says in place of a reply."""
        self.written: deque[Batch] = deque()
        self.lost = False
        self._reader = Reader(replyError=reply_error, notEnoughData=_NO_REPLY_YET)
        self._failure = failure
        self._on_event = on_event
        self._paused = False
        self._retired = False
        self._transport: asyncio.Transport | None = None
        self._is_used = False
        """Whether anything was written since the last look."""
        self._ping: PendingReplies | None = None
        self._look: asyncio.TimerHandle | None = None

    @property
    def writable(self) -> bool:
        """Whether a write now would go out, not just pile up."""
        return not (self._paused or self._retired or self.lost)

    def write(self, batches: Collection[Batch]) -> None:
        """Send all commands of `batches` in one write. Lost, it settles them at once."""
        assert self._transport is not None
        self._is_used = True
        data = b"".join([batch.data for batch in batches])
        for batch in batches:
            batch.data = b""  # the transport has its own copy; hold one, not two, until the reply
        self.written.extend(batches)
        if self.lost:
            self._fail_written()
        else:
            self._transport.write(data)

    def retire(self) -> None:
        """Write no more, and close once all replies are in: this Redis refuses writes (it is now a
        replica, or loading), the next connection may reach one that does not."""
        self._retired = True
        if not self.written:
            self.drop()

    def drop(self) -> None:
        """Give the connection up now. What was written and not answered is not confirmed."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, no isinstance: uvloop's transports are not asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._look_again()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            is_understood = self._hand_out(iter(self._reader.gets, _NO_REPLY_YET))
        except HiredisError:
            is_understood = False
        if not is_understood or (self._retired and not self.written):
            self.drop()

    def _hand_out(self, replies: Iterator[Any]) -> bool:
        """Give these to those whose they are; whether each of them was asked for."""
        written = self.written
        while written:
            batch = written[0]
            # In one step of C: a bulk append has a thousand replies.
            batch.replies.extend(islice(replies, batch.expected - len(batch.replies)))
            if len(batch.replies) < batch.expected:
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

    def _look_again(self) -> None:
        self._is_used = False
        self._look = asyncio.get_running_loop().call_later(PING_S, self._check_path)

    def _check_path(self) -> None:
        """Find out that the path to Redis is dead while nobody waits for it, and keep it alive by that."""
        if self._ping is not None and not self._ping.waiter.done():
            self.drop()
            return
        self._ping = None
        if not self._is_used and not self.written:
            self._ping = PendingReplies(pack(("PING",)), 1)
            self.write([self._ping])
        self._look_again()

    def _end(self) -> None:
        if self.lost:
            return
        self.lost = True
        if self._look is not None:
            self._look.cancel()
        self._fail_written()
        self._on_event(self)

    def _fail_written(self) -> None:
        while self.written:
            self.written.popleft().settle(self._failure())


async def open_connection(address: RedisAddress, make: Callable[[], RedisConnection]) -> RedisConnection:
    """Connect, without a word yet. Raises OSError (ssl.SSLError is one)."""
    loop = asyncio.get_running_loop()
    if address.path:
        _, connection = await loop.create_unix_connection(make, address.path)
    else:
        _, connection = await loop.create_connection(make, address.host, address.port, ssl=address.tls)
    return connection


class PendingReplies:
    """The commands of one caller. `waiter` gets the list of `replies`, one for each command, never
    an exception: one object and one wake-up however many commands there are."""

    __slots__ = ("data", "deadline", "expected", "replies", "waiter")

    def __init__(self, data: bytes, expected: int, deadline: float = math.inf) -> None:
        """`deadline`: loop time by which Redis must have answered."""
        self.data = data
        self.expected = expected
        self.deadline = deadline
        self.replies: list[Any] = []
        self.waiter: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def settle(self, failure: Exception | None = None) -> None:
        """Wake the caller; commands without a reply get `failure`. A caller that went away is fine."""
        if failure is not None:
            self.replies.extend([failure] * (self.expected - len(self.replies)))
        if not self.waiter.done():
            self.waiter.set_result(self.replies)


async def exchange(connection: RedisConnection, *commands: Command) -> list[Any]:
    """The replies to the first commands on a line; an error stands in the place of its reply."""
    batch = PendingReplies(b"".join([pack(command) for command in commands]), len(commands))
    connection.write([batch])
    return await batch.waiter
