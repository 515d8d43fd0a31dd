"""The pipeline of one server: commands of one turn of the event loop share one write.

A single command costs redis-py more than Redis: a connection from the pool, a write, a wait. While all
connections of the pipeline are busy, further commands wait and share the next write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError

from homewire.redis.connection import Command, PendingWrite, RedisConnection, pack
from homewire.redis.replicas import ReplicatedWrite
from homewire.redis.servers import Connections, Server

COMMAND_S: Final = 4.0
"""From a command to its reply, the wait for a connection included."""
MAX_CONNECTIONS: Final = 4
"""Maximum connections of one pipeline: a connection that stalls delays only its own commands."""
MAX_COMMANDS_PER_WRITE: Final = 256
"""Maximum commands in one write, unless one request has more: the first reply waits for the whole write."""

DEADLINE_CHECK_S: Final = 0.1
"""Seconds between two checks of the deadlines, while requests are pending."""


class _Request:
    """The commands of one caller, and its replies."""

    __slots__ = ("blocks", "commands", "deadline", "replies")

    def __init__(
        self, commands: Sequence[Command], loop: asyncio.AbstractEventLoop, deadline: float, *, blocks: bool
    ) -> None:
        self.commands = commands
        self.blocks = blocks
        """Whether Redis may wait before it replies: such commands go alone."""
        self.replies: asyncio.Future[list[Any]] = loop.create_future()
        self.deadline = deadline
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


class ServerPipeline:
    """Pipelined commands of one client to one server.

    Each is sent at most once, and not if its caller was cancelled.
    """

    def __init__(
        self,
        connections: Connections,
        server: Server,
        max_connections: int = MAX_CONNECTIONS,
        *,
        is_replicated: bool = False,
    ) -> None:
        """`is_replicated`: each write is confirmed by as many replicas as `servers.ack_replicas` says."""
        self._open = connections
        self._server = server
        self._max_connections = max_connections
        self._is_replicated = is_replicated
        self._waiting: deque[_Request] = deque()
        self._connections: list[RedisConnection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._flush_scheduled = False
        self._pending: deque[_Request] = deque()
        """Requests without replies at the last check, in the order of their deadlines."""
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, commands: Sequence[Command], deadline: float, *, blocks: bool = False) -> list[Any]:
        """The replies to these commands, which run in their order on one connection. An error of Redis is in
        the place of its reply.

        Raises OSError, redis-py's ConnectionError, and TimeoutError at `deadline` (loop time).
        """
        loop = asyncio.get_running_loop()
        request = _Request(commands, loop, deadline, blocks=blocks)
        self._waiting.append(request)
        self._pending.append(request)
        if self._timer is None:
            self._timer = loop.call_later(DEADLINE_CHECK_S, self._check_deadlines)
        self._schedule_flush()
        return await request.replies

    def _schedule_flush(self) -> None:
        if self._waiting and not self._flush_scheduled and self._has_connection():
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _has_connection(self) -> bool:
        return (
            len(self._connections) + len(self._opening) < self._max_connections
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
                idle.write([self._write(requests)])
            else:
                task = asyncio.create_task(self._write_on_new_connection(requests))
                self._opening.add(task)
                task.add_done_callback(self._opened)
        self._schedule_flush()

    def _write(self, requests: Sequence[_Request]) -> PendingWrite:
        write = _Write(requests, self._schedule_flush)
        replicas = self._open.servers.ack_replicas if self._is_replicated else 0
        if replicas:
            return ReplicatedWrite([write], replicas, RedisConnectionError)
        return write

    def _next_requests(self) -> list[_Request]:
        taken: list[_Request] = []
        size = 0
        while self._waiting and (not taken or self._fits(size, taken[-1])):
            request = self._waiting.popleft()
            # Its caller may have been cancelled.
            if not request.replies.done():
                taken.append(request)
                size += len(request.commands)
        return taken

    def _fits(self, size: int, last: _Request) -> bool:
        """Whether the next request goes out in the write that ends with `last`."""
        request = self._waiting[0]
        return (
            size + len(request.commands) <= MAX_COMMANDS_PER_WRITE and not request.blocks and not last.blocks
        )

    async def _write_on_new_connection(self, requests: Sequence[_Request]) -> None:
        try:
            connection = await self._open.open(self._server, self._connection_changed)
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
                connection.write([self._write(waiting)])

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


def _fail(requests: Sequence[_Request], error: Exception) -> None:
    for each in requests:
        each.fail(error)
