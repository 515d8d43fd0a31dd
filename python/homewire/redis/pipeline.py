"""Commands that were asked for in one turn of the loop go out as one write and are answered together.

A command on its own costs redis-py more than Redis: a connection from the pool and back, a write, a wait.
While all lines that these may take are busy, further commands wait, and go together as well: the busier a
node is, the more share one write.

Everything goes to one node, on one connection: keys of different slots are no concern of it.
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
from homewire.redis.connection import Command, RedisConnection, Word, pack

AT_ONCE: Final = 4
"""Lines that one of these takes at most. One that answers no more holds up the others only so far."""
TOGETHER: Final = 256
"""Commands in one write, unless one caller asks for more: the first should not wait for very many."""

DEADLINE_GRAIN: Final = 0.1
"""Seconds between two looks at the deadlines, while anything is pending."""

Call: TypeAlias = tuple[Sequence[str | bytes], Sequence[Word]]
"""A script's keys, and its arguments."""


class Program(Protocol):
    """A script: its text, and the SHA-1 that Redis knows it by."""

    @property
    def text(self) -> str: ...

    @property
    def sha(self) -> str: ...


class _Asked:
    """What one caller asks for."""

    __slots__ = ("commands", "deadline", "replies")

    def __init__(self, commands: Sequence[Command], loop: asyncio.AbstractEventLoop) -> None:
        self.commands = commands
        self.replies: asyncio.Future[list[Any]] = loop.create_future()
        self.deadline = loop.time() + COMMAND_S
        """Loop time by which there must be replies."""

    def fail(self, error: Exception) -> None:
        """There will be no replies. A caller that went away is fine."""
        if not self.replies.done():
            self.replies.set_exception(error)


class _Trip:
    """The commands of some callers, on their way together (`homewire.redis.connection.Batch`)."""

    __slots__ = ("_asked", "_ended", "data", "deadline", "expected", "replies")

    def __init__(self, asked: Sequence[_Asked], ended: Callable[[], None]) -> None:
        commands = [pack(command) for each in asked for command in each.commands]
        self.data = b"".join(commands)
        self.expected = len(commands)
        self.deadline = asyncio.get_running_loop().time() + COMMAND_S
        self.replies: list[Any] = []
        self._asked = asked
        self._ended = ended

    def settle(self, failure: Exception | None = None) -> None:
        """Give everybody theirs: what was answered before a line broke was answered."""
        replies, at = self.replies, 0
        for asked in self._asked:
            end = at + len(asked.commands)
            if failure is not None and end > len(replies):
                asked.fail(failure)
            elif not asked.replies.done():
                asked.replies.set_result(replies[at:end])
            at = end
        self._ended()


class AutoPipeline:
    """Commands on one client. Each is sent at most once: not at all if its caller gave up before that."""

    def __init__(self, redis: Redis, *, only_reads: bool = False) -> None:
        """`redis` is one that `homewire.redis.connect` made, and closing it ends the trips.

        With `only_reads` the commands may be repeated: those that a connection broke under are sent once
        more, on another one.
        """
        self._pool = Pool.of(redis)
        self._only_reads = only_reads
        self._shapes: dict[Any, Callable[[Any], Any]] = dict(redis.response_callbacks)
        """What redis-py makes of the replies of some commands, by their names."""
        # Most of what is read are hashes: `store.database.decoded` makes texts of them in one step.
        del self._shapes["HGETALL"]
        self._waiting: deque[_Asked] = deque()
        self._lines: list[RedisConnection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._turn_planned = False
        self._pending: deque[_Asked] = deque()
        """All that were not answered when they were looked at last, by their deadlines."""
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, *commands: Command) -> list[Any]:
        """The replies to these commands, carried out in their order on one connection.

        Raises what redis-py raises; TimeoutError after COMMAND_S.
        """
        return _without_errors(await self.ask_each(*commands))

    async def ask_each(self, *commands: Command) -> list[Any]:
        """The same; an error that Redis answers with stands in the place of its reply."""
        loop = asyncio.get_running_loop()
        asked = _Asked(commands, loop)
        try:
            replies = await self._answered(asked)
        except RedisConnectionError:
            if not self._only_reads:
                raise
            async with asyncio.timeout_at(asked.deadline):
                replies = await self._answered(_Asked(commands, loop))
        for at, command in enumerate(commands):
            shape = self._shapes.get(command[0])
            if shape is not None and not isinstance(replies[at], ResponseError):
                replies[at] = shape(replies[at])
        return replies

    async def _answered(self, asked: _Asked) -> list[Any]:
        self._waiting.append(asked)
        self._pending.append(asked)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DEADLINE_GRAIN, self._check_deadlines)
        self._plan_turn()
        return await asked.replies

    async def run(self, script: Program, *calls: Call) -> list[Any]:
        """The answers of one script, run for each of these calls, in one trip. Raises what `ask` does."""
        if not calls:
            return []
        began = asyncio.get_running_loop().time()
        full = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        answers = await self.ask_each(*(("EVALSHA", script.sha, *rest) for rest in full))
        # Somebody may load it between two of them: only what was not executed is sent again, in full.
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            async with asyncio.timeout_at(began + COMMAND_S):
                again = await self.ask_each(*(("EVAL", script.text, *full[at]) for at in unknown))
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        return _without_errors(answers)

    def _plan_turn(self) -> None:
        if self._waiting and not self._turn_planned and self._has_line():
            self._turn_planned = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _has_line(self) -> bool:
        return len(self._lines) + len(self._opening) < AT_ONCE or self._idle_line() is not None

    def _idle_line(self) -> RedisConnection | None:
        return next((line for line in self._lines if not line.written), None)

    def _take_turn(self) -> None:
        """Send what was asked for since the last turn."""
        self._turn_planned = False
        asked = self._next_asked()
        if asked:
            idle = self._idle_line()
            if idle is not None:
                idle.write([_Trip(asked, self._plan_turn)])
            else:
                task = asyncio.create_task(self._write_on_new_line(asked))
                self._opening.add(task)
                task.add_done_callback(self._opened)
        self._plan_turn()

    def _next_asked(self) -> list[_Asked]:
        taken: list[_Asked] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].commands) <= TOGETHER):
            asked = self._waiting.popleft()
            # Who gave up has no use for an answer.
            if not asked.replies.done():
                taken.append(asked)
                size += len(asked.commands)
        return taken

    async def _write_on_new_line(self, asked: Sequence[_Asked]) -> None:
        try:
            line = await self._pool.open_line(self._line_changed)
        except asyncio.CancelledError:
            _fail(asked, RedisConnectionError("the node stops"))
            raise
        except Exception as error:
            # Whatever it is, it is the callers' to translate.
            _fail(asked, error)
        else:
            # It may be lost already, and then nobody says so again.
            if not line.lost:
                self._lines.append(line)
            # Opening it may have taken longer than some of them wait, and these may have asked again since.
            if waiting := [each for each in asked if not each.replies.done()]:
                line.write([_Trip(waiting, self._plan_turn)])

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._plan_turn()

    def _line_changed(self, line: RedisConnection) -> None:
        if line.lost and line in self._lines:
            self._lines.remove(line)
        self._plan_turn()

    def _check_deadlines(self) -> None:
        """One timer for all: one for each would cost more than its command."""
        loop, pending = asyncio.get_running_loop(), self._pending
        now = loop.time()
        while pending and (pending[0].replies.done() or pending[0].deadline <= now):
            pending.popleft().fail(TimeoutError())
        for line in tuple(self._lines):
            if line.written and line.written[0].deadline <= now:
                line.drop()
        busy = pending or any(line.written for line in self._lines)
        self._timer = loop.call_later(DEADLINE_GRAIN, self._check_deadlines) if busy else None


def _without_errors(replies: list[Any]) -> list[Any]:
    """These replies. Raises the first error among them."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _fail(asked: Sequence[_Asked], error: Exception) -> None:
    for each in asked:
        each.fail(error)
