"""Automatic pipelining: commands of one turn of the event loop share one write to each server.

On a Redis Cluster each command goes to the server of its slot. A command that was redirected, or refused
while its slot moves, was not executed, so it is sent again. A command without a reply is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from homewire.redis.cluster import Redirect, is_failing_over, key_of, slot_of
from homewire.redis.connection import Argument, Command
from homewire.redis.server_pipeline import COMMAND_S, MAX_CONNECTIONS, ServerPipeline
from homewire.redis.servers import Connections, Server

FAILOVER_S: Final = 1.0
"""How long a command is repeated that is refused because its slot moves, or has no master."""
PAUSE_S: Final = 0.05
"""Pause before it is repeated."""
MAX_REDIRECTS: Final = 16
"""Redirects of one command: servers that do not agree on a slot send it back and forth."""

Call: TypeAlias = tuple[Sequence[str | bytes], Sequence[Argument]]
"""A script's keys, and its arguments."""


class Program(Protocol):
    """A script: its text, and the SHA-1 that Redis knows it by."""

    @property
    def text(self) -> str: ...

    @property
    def sha(self) -> str: ...


class AutoPipeline:
    """Pipelined commands of one client. Each is sent at most once, and not if its caller was cancelled."""

    def __init__(
        self,
        redis: Redis,
        *,
        only_reads: bool = False,
        is_replicated: bool = False,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """`redis` comes from `homewire.redis.connect`; closing it closes the pipeline's connections.

        With `only_reads` commands are sent once more, on another connection, if their connection was lost.
        With `is_replicated` each write is confirmed by replicas, too, if the settings say so.
        `max_connections` are those to one server.
        """
        self._connections = Connections.of(redis)
        self._servers = self._connections.servers
        self._single = self._servers.single
        self._only_reads = only_reads
        self._is_replicated = is_replicated
        self._max_connections = max_connections
        self._pipelines: dict[Server, ServerPipeline] = {}
        self._shapes: dict[Any, Callable[[Any], Any]] = dict(redis.response_callbacks)
        """redis-py's conversion of replies, by command name."""
        # Most reads are of hashes, which `store.database.decoded` decodes in one step.
        del self._shapes["HGETALL"]

    async def ask(self, *commands: Command) -> list[Any]:
        """The replies to these commands, which run in their order if they are on one slot.

        Raises the errors of redis-py; TimeoutError after COMMAND_S.
        """
        return _without_errors(await self.ask_each(*commands))

    async def ask_each(self, *commands: Command) -> list[Any]:
        """As `ask`, with an error of Redis in the place of its reply."""
        replies = await self.ask_raw(commands)
        for at, command in enumerate(commands):
            shape = self._shapes.get(command[0])
            if shape is not None and not isinstance(replies[at], ResponseError):
                replies[at] = shape(replies[at])
        return replies

    async def ask_raw(
        self, commands: Sequence[Command], *, blocks: bool = False, server: Server | None = None
    ) -> list[Any]:
        """As `ask_each`, with replies as Redis sends them. `blocks`: Redis may wait before it replies.

        With `server` the commands go to that one, whatever their keys.
        """
        deadline = asyncio.get_running_loop().time() + COMMAND_S
        target = server or self._single
        try:
            if target is not None:
                return await self._pipeline(target).ask(commands, deadline, blocks=blocks)
            return await self._ask_cluster(commands, deadline, blocks=blocks)
        except RedisConnectionError:
            if not self._only_reads:
                raise
        if target is not None:
            return await self._pipeline(target).ask(commands, deadline)
        async with asyncio.timeout_at(deadline):
            # The server may be gone, and another one have its slots.
            await self._servers.refresh()
            return await self._ask_cluster(commands, deadline, blocks=blocks)

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

    def redirects(self, key: str) -> int | None:
        """How often commands on the slot of a key were redirected; None without a cluster."""
        return None if self._single is not None else self._servers.redirects.get(slot_of(key), 0)

    def _pipeline(self, server: Server) -> ServerPipeline:
        pipeline = self._pipelines.get(server)
        if pipeline is None:
            pipeline = ServerPipeline(
                self._connections, server, self._max_connections, is_replicated=self._is_replicated
            )
            self._pipelines[server] = pipeline
        return pipeline

    # -- a Redis Cluster --

    async def _ask_cluster(
        self, commands: Sequence[Command], deadline: float, *, blocks: bool = False
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(deadline):
            await self._servers.locate()
        keys = [key_of(command) for command in commands]
        # A command without a key goes always to the same server while the slots stay.
        slots = [0 if key is None else slot_of(key) for key in keys]
        replies: list[Any] = [None] * len(commands)
        asked: dict[int, Server] = {}
        """The servers to which an ASK sends commands, by their places."""
        todo: Sequence[int] = range(len(commands))
        refused_until = loop.time() + FAILOVER_S
        for _ in range(MAX_REDIRECTS):
            targets = {at: asked.get(at) or self._servers.of_slot(slots[at]) for at in todo}
            await self._send(commands, targets, asked, replies, deadline, blocks=blocks)
            again, asked, is_refused = self._unanswered(todo, targets, slots, replies)
            if is_refused and loop.time() + PAUSE_S > min(refused_until, deadline):
                break
            if not again:
                break
            if is_refused:
                self._servers.refresh_soon()
                await asyncio.sleep(PAUSE_S)
            todo = again
        return replies

    async def _send(
        self,
        commands: Sequence[Command],
        targets: dict[int, Server | None],
        asked: dict[int, Server],
        replies: list[Any],
        deadline: float,
        *,
        blocks: bool,
    ) -> None:
        """Send each command to its server, and put the replies into their places."""
        groups: dict[Server, list[int]] = {}
        for at, server in targets.items():
            if server is None:
                replies[at] = ResponseError("CLUSTERDOWN no server is known to serve the slot")
            else:
                groups.setdefault(server, []).append(at)
        answers = await asyncio.gather(
            *(
                self._pipeline(server).ask(
                    [each for at in places for each in ((*[_ASKING] * (at in asked), commands[at]))],
                    deadline,
                    blocks=blocks,
                )
                for server, places in groups.items()
            ),
            return_exceptions=True,
        )
        # Behind the last one, so that no command is on its way when the caller learns of a failure.
        for (_, places), answer in zip(groups.items(), answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            found = iter(answer)
            for at in places:
                if at in asked:
                    next(found)
                replies[at] = next(found)

    def _unanswered(
        self,
        todo: Sequence[int],
        targets: dict[int, Server | None],
        slots: Sequence[int],
        replies: Sequence[Any],
    ) -> tuple[list[int], dict[int, Server], bool]:
        """The commands that were not executed, the servers that have the keys of some of them already, and
        whether any was refused for the moment."""
        again: list[int] = []
        asked: dict[int, Server] = {}
        is_refused = False
        repeated: set[int] = set()
        for at in todo:
            reply, told_by = replies[at], targets[at]
            redirect = Redirect.of(reply)
            if redirect is not None and told_by is not None:
                server = self._servers.follow(redirect, told_by)
                if redirect.is_ask:
                    asked[at] = server
            elif is_failing_over(reply):
                is_refused = True
            elif not (self._only_reads and slots[at] in repeated):
                continue
            # Reads of one slot keep their order: those behind a repeated one are repeated, too.
            repeated.add(slots[at])
            again.append(at)
        return again, asked, is_refused


_ASKING: Final[Command] = ("ASKING",)


def _without_errors(replies: list[Any]) -> list[Any]:
    """The replies. Raises the first error among them."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies
