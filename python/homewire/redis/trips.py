"""Commands that were asked for in one turn of the loop go out as one write and are answered together.

A command on its own costs redis-py more than Redis: a connection from the pool and back, a write, a wait.
While all connections that these may take are busy, further commands wait, and go together as well: the busier
a node is, the more share one write.

Everything goes to one node, on one connection: keys of different slots are no concern of it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from homewire.redis.connect import COMMAND_S

AT_ONCE: Final = 4
"""Connections that one of these takes at most. One that answers no more holds up the others only so far."""
TOGETHER: Final = 256
"""Commands in one write, unless one caller asks for more: the first should not wait for very many."""

DEADLINE_GRAIN: Final = 0.1
"""Seconds between two looks at the deadlines, while anything is pending."""

Command: TypeAlias = Sequence[str | int | bytes]
Call: TypeAlias = tuple[Sequence[str | bytes], Sequence[str | int | bytes]]
"""A script's keys, and its arguments."""


class Program(Protocol):
    """A script: its text, and the SHA-1 that Redis knows it by."""

    @property
    def text(self) -> str: ...

    @property
    def sha(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one caller asks for."""

    commands: Sequence[Command]
    replies: asyncio.Future[list[Any]]
    deadline: float
    """Loop time by which there must be replies."""


class Trips:
    """Commands on one client. Each is sent at most once: not at all if its caller gave up before that."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: deque[_Asked] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
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
        asked = _Asked(commands, loop.create_future(), loop.time() + COMMAND_S)
        self._waiting.append(asked)
        self._pending.append(asked)
        if self._timer is None:
            self._timer = loop.call_later(DEADLINE_GRAIN, self._check_deadlines)
        self._plan_turn()
        return await asked.replies

    async def run(self, script: Program, *calls: Call) -> list[Any]:
        """The answers of one script, run for each of these calls, in one trip. Raises what `ask` does."""
        if not calls:
            return []
        full = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        answers = await self.ask_each(*(("EVALSHA", script.sha, *rest) for rest in full))
        # Somebody may load it between two of them: only what was not executed is sent again, in full.
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self.ask_each(*(("EVAL", script.text, *full[at]) for at in unknown))
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        return _without_errors(answers)

    def _check_deadlines(self) -> None:
        """One timer for all: one for each would cost more than its command."""
        loop, pending = asyncio.get_running_loop(), self._pending
        now = loop.time()
        while pending and (pending[0].replies.done() or pending[0].deadline <= now):
            asked = pending.popleft()
            if not asked.replies.done():
                asked.replies.set_exception(TimeoutError())
        self._timer = loop.call_later(DEADLINE_GRAIN, self._check_deadlines) if pending else None

    def _plan_turn(self) -> None:
        if self._waiting and not self._turn_planned and len(self._under_way) < AT_ONCE:
            self._turn_planned = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Send what was asked for since the last turn."""
        self._turn_planned = False
        batch = self._next_batch()
        if batch:
            task = asyncio.create_task(self._carry_out(batch))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        self._plan_turn()

    def _next_batch(self) -> list[_Asked]:
        batch: list[_Asked] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0].commands) <= TOGETHER):
            asked = self._waiting.popleft()
            # Who gave up has no use for an answer.
            if not asked.replies.done():
                batch.append(asked)
                size += len(asked.commands)
        return batch

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._plan_turn()

    async def _carry_out(self, batch: Sequence[_Asked]) -> None:
        commands = [command for asked in batch for command in asked.commands]
        try:
            async with asyncio.timeout(COMMAND_S):
                replies = await self._exchange(commands)
        except asyncio.CancelledError:
            _fail(batch, RedisConnectionError("the node stops"))
            raise
        except Exception as error:
            # Whatever it is, it is the callers' to translate.
            _fail(batch, error)
            return
        at = 0
        for asked in batch:
            end = at + len(asked.commands)
            if not asked.replies.done():
                asked.replies.set_result(replies[at:end])
            at = end

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, read all. An error that Redis answers with stands in the place of its reply."""
        pool = self._redis.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await self._reply(connection, str(command[0])) for command in commands]
        except BaseException:
            # Replies may still come, and nobody must take them for theirs.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _reply(self, connection: Any, name: str) -> Any:
        try:
            # What limits the time is around the whole trip: another timer for each reply costs more than it.
            reply = await connection.read_response(timeout=math.inf)
        except ResponseError as error:
            return error
        # As `Redis.parse_response` does, which costs more than the reading.
        shape = self._redis.response_callbacks.get(name)
        return reply if shape is None else shape(reply)


def _without_errors(replies: list[Any]) -> list[Any]:
    """These replies. Raises the first error among them."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _fail(batch: Sequence[_Asked], error: Exception) -> None:
    for asked in batch:
        if not asked.replies.done():
            asked.replies.set_exception(error)
