"""Automatic pipelining: commands of one turn of the event loop share one write.

A single command costs redis-py more than Redis: a connection from the pool, a write, a wait. While all
connections of the pipeline are busy, further commands wait and share the next write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from homewire.redis.connect import COMMAND_S, Pool
from homewire.redis.connection import Argument, Command, RedisConnection, pack

MAX_CONNECTIONS: Final = 4
"""Maximum connections of one pipeline: a connection that stalls delays only its own commands."""
MAX_COMMANDS_PER_WRITE: Final = 256
"""Maximum commands in one write, unless one request has more: the first reply waits for the whole write."""

DEADLINE_CHECK_S: Final = 0.1
"""Seconds between two checks of the deadlines, while requests are pending."""

Call: TypeAlias = tuple[Sequence[str | bytes], Sequence[Argument]]
"""A script's keys, and its arguments."""


class Program(Protocol):
    """A script: its text, and the SHA-1 that Redis knows it by."""

    @property
    def text(self) -> str: ...

    @property
    def sha(self) -> str: ...


class _Request:
    """The commands of one caller, and its replies."""

    __slots__ = ("commands", "deadline", "replies")

    def __init__(self, commands: Sequence[Command], loop: asyncio.AbstractEventLoop) -> None:
        self.commands = commands
        self.replies: asyncio.Future[list[Any]] = loop.create_future()
        self.deadline = loop.time() + COMMAND_S
        """Loop time of the timeout."""

    def fail(self, error: Exception) -> None:
        """Raise `error` in the caller, unless it was cancelled."""
        if not self.replies.done():
            self.replies.set_exception(error)


class _Write:
    """The commands of several requests in one write (`homewire.redis.connection.PendingWrite`)."""

    __slots__ = ("_ended", "_requests", "data", "deadline", "expected", "replies")

    def __init__(self, requests: Sequence[_Request], ended: Callable[[], None]) -> None:
        commands = [pack(command) for each in requests for command in each.commands]
        self.data = b"".join(commands)
        self.expected = len(commands)
        self.deadline = asyncio.get_running_loop().time() + COMMAND_S
        self.replies: list[Any] = []
        self._requests = requests
        self._ended = ended

    def settle(self, failure: Exception | None = None) -> None:
        """Hand out the replies. Requests without all their replies fail with `failure`."""
        replies, at = self.replies, 0
        for request in self._requests:
            end = at + len(request.commands)
            if failure is not None and end > len(replies):
                request.fail(failure)
            elif not request.replies.done():
                request.replies.set_result(replies[at:end])
            at = end
        self._ended()


class AutoPipeline:
    """Pipelined commands of one client. Each is sent at most once, and not if its caller was cancelled."""

    def __init__(self, redis: Redis, *, only_reads: bool = False) -> None:
        """`redis` comes from `homewire.redis.connect`; closing it closes the pipeline's connections.

        With `only_reads` commands are sent once more, on another connection, if their connection was lost.
        """
        self._pool = Pool.of(redis)
        self._only_reads = only_reads
        self._shapes: dict[Any, Callable[[Any], Any]] = dict(redis.response_callbacks)
        """redis-py's conversion of replies, by command name."""
        # Most reads are of hashes, which `store.database.decoded` decodes in one step.
        del self._shapes["HGETALL"]
        self._waiting: deque[_Request] = deque()
        self._connections: list[RedisConnection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._flush_scheduled = False
        self._pending: deque[_Request] = deque()
        """Requests without replies at the last check, in the order of their deadlines."""
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, *commands: Command) -> list[Any]:
        """The replies to these commands, which run in their order on one connection.

        Raises the errors of redis-py; TimeoutError after COMMAND_S.
        """
        return _without_errors(await self.ask_each(*commands))

    async def ask_each(self, *commands: Command) -> list[Any]:
        """As `ask`, with an error of Redis in the place of its reply."""
        loop = asyncio.get_running_loop()
        request = _Request(commands, loop)
        try:
            replies = await self._answered(request)
        except RedisConnectionError:
            if not self._only_reads:
                raise
            async with asyncio.timeout_at(request.deadline):
                replies = await self._answered(_Request(commands, loop))
        for at, command in enumerate(commands):
            shape = self._shapes.get(command[0])
            if shape is not None and not isinstance(replies[at], ResponseError):
                replies[at] = shape(replies[at])
        return replies

    async def _answered(self, request: _Request) -> list[Any]:
        self._waiting.append(request)
        self._pending.append(request)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DEADLINE_CHECK_S, self._check_deadlines)
        self._schedule_flush()
        return await request.replies

    async def run(self, script: Program, *calls: Call) -> list[Any]:
        """The replies of a script, run for each call, in one round trip. Raises the errors of `ask`."""
        if not calls:
            return []
        began = asyncio.get_running_loop().time()
        full = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        answers = await self.ask_each(*(("EVALSHA", script.sha, *rest) for rest in full))
        # Another client may load it between two calls: only calls that did not run are sent again, in full.
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            async with asyncio.timeout_at(began + COMMAND_S):
                again = await self.ask_each(*(("EVAL", script.text, *full[at]) for at in unknown))
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        return _without_errors(answers)

    def _schedule_flush(self) -> None:
        if self._waiting and not self._flush_scheduled and self._has_connection():
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _has_connection(self) -> bool:
        return (
            len(self._connections) + len(self._opening) < MAX_CONNECTIONS
            or self._idle_connection() is not None
        )

    def _idle_connection(self) -> RedisConnection | None:
        return next((connection for connection in self._connections if not connection.written), None)

    def _flush(self) -> None:
        """Send the requests that came since the last write."""
        self._flush_scheduled = False
        requests = self._next_requests()
        if requests:
            idle = self._idle_connection()
            if idle is not None:
                idle.write([_Write(requests, self._schedule_flush)])
            else:
                task = asyncio.create_task(self._write_on_new_connection(requests))
                self._opening.add(task)
                task.add_done_callback(self._opened)
        self._schedule_flush()

    def _next_requests(self) -> list[_Request]:
        taken: list[_Request] = []
        size = 0
        while self._waiting and (
            not taken or size + len(self._waiting[0].commands) <= MAX_COMMANDS_PER_WRITE
        ):
            request = self._waiting.popleft()
            # Its caller may have been cancelled.
            if not request.replies.done():
                taken.append(request)
                size += len(request.commands)
        return taken

    async def _write_on_new_connection(self, requests: Sequence[_Request]) -> None:
        try:
            connection = await self._pool.open_connection(self._connection_changed)
        except asyncio.CancelledError:
            _fail(requests, RedisConnectionError("the node stops"))
            raise
        except Exception as error:
            # The callers translate it.
            _fail(requests, error)
        else:
            # A connection that is lost already does not report it again.
            if not connection.lost:
                self._connections.append(connection)
            # Opening may have taken longer than the deadline of a request, and its caller may have retried.
            if waiting := [each for each in requests if not each.replies.done()]:
                connection.write([_Write(waiting, self._schedule_flush)])

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._schedule_flush()

    def _connection_changed(self, connection: RedisConnection) -> None:
        if connection.lost and connection in self._connections:
            self._connections.remove(connection)
        self._schedule_flush()

    def _check_deadlines(self) -> None:
        """One timer for all requests: one for each would cost more than its command."""
        loop, pending = asyncio.get_running_loop(), self._pending
        now = loop.time()
        while pending and (pending[0].replies.done() or pending[0].deadline <= now):
            pending.popleft().fail(TimeoutError())
        for connection in tuple(self._connections):
            if connection.written and connection.written[0].deadline <= now:
                connection.drop()
        busy = pending or any(connection.written for connection in self._connections)
        self._timer = loop.call_later(DEADLINE_CHECK_S, self._check_deadlines) if busy else None


def _without_errors(replies: list[Any]) -> list[Any]:
    """The replies. Raises the first error among them."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _fail(requests: Sequence[_Request], error: Exception) -> None:
    for each in requests:
        each.fail(error)
