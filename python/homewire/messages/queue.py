"""From the transactional outbox to the queue of a channel: messages encoded, encrypted, queued and stored.

An entry stays in the queue until it was carried, was put off or was given up: each is one step in Redis. An
entry whose carrier died is another's after a while, so a message is carried at least once.

The Lua of the message queues; all keys of one script lie in the slot of `{notify}`.

Times are Redis' own, in ms: the clocks of nodes may differ. An entry of a queue is a sealed letter `m`, how
often it was tried `n`, and when it was given to us `c`. What waits for its next try is in a sorted set,
as `<tries> <since> <sealed>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import ConfigurationError, Unavailable
from homewire.log import Seldom
from homewire.messages.message import Channel, Message, MessageKind, QueuedMessage
from homewire.messages.models import OutboxMessage, OutboxQueue
from homewire.redis.connect import COMMAND_S, translate_redis_errors
from homewire.redis.pipeline import AutoPipeline
from homewire.sealing import Sealer
from homewire.store.keys import (
    DAY_MS,
    MESSAGES_KEPT,
    message_queue,
    messages_copied,
    messages_dead,
    messages_waiting,
)
from homewire.store.script import Script, lua, standalone

QUEUE: Final = standalone(lua(__package__, "queue_messages"))
FINISH_MESSAGE: Final = standalone(lua(__package__, "finish_message"))
DEFER_MESSAGE: Final = standalone(lua(__package__, "defer_message"))
DEAD_LETTER_MESSAGE: Final = standalone(lua(__package__, "dead_letter"))
PROMOTE_MESSAGES: Final = standalone(lua(__package__, "promote_messages"))

QUEUED: Final = 100_000
"""The most messages that wait to be carried, by channel; beyond it 503, and nothing is changed. Those of
changes at the same moment may come on top."""
MAX_STORED: Final = 1_000
"""The most messages that are kept for `homewire messages`; the oldest go first."""
STORED_MS: Final = 24 * 60 * 60 * 1000

Argument = str | int | bytes


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message without a sender, and when it was stored, in ms since 1970."""

    queued: QueuedMessage
    since_ms: int
    problem: str = ""
    """Why it was given up."""


class MessageOutbox:
    """Takes messages: for the channels `carried` into a queue, others to be looked at.

    `base_url` is where those who get messages reach this homewire.
    """

    def __init__(self, redis: Redis, sealer: Sealer, base_url: str, carried: Collection[Channel]) -> None:
        self._pipeline = AutoPipeline(redis)
        self._sealer = sealer
        self._base_url = base_url
        self._carried = carried

    async def require_room(self, kind: MessageKind) -> None:
        """Raise Unavailable when too many messages of that channel wait already."""
        channel = Channel.of(kind)
        if channel not in self._carried:
            return
        with translate_redis_errors():
            queued, waiting = await self._pipeline.ask(
                ("XLEN", message_queue(channel)), ("ZCARD", messages_waiting(channel))
            )
        if queued + waiting >= QUEUED:
            raise Unavailable(problem="too many messages wait to be sent")

    def posting(self, message: Message) -> OutboxMessage:
        """The message, sealed, for the change that causes it."""
        channel = Channel.of(message.kind)
        sealed = QueuedMessage.new(message, self._base_url).sealed(self._sealer)
        return OutboxMessage(OutboxQueue(channel if channel in self._carried else OutboxQueue.STORED), sealed)


def queue_call(
    project_id: int, queue: OutboxQueue, remembered_ms: int, queued_messages: Sequence[Argument]
) -> tuple[list[str], list[Argument]]:
    """Keys and arguments of QUEUE; `queued_messages` are ids of outbox entries and encrypted messages."""
    if queue is OutboxQueue.STORED:
        return [MESSAGES_KEPT, messages_copied(project_id)], [
            remembered_ms,
            MAX_STORED,
            STORED_MS,
            *queued_messages,
        ]
    return [message_queue(queue), messages_copied(project_id)], [remembered_ms, 0, 0, *queued_messages]


async def stored_messages(redis: Redis, sealer: Sealer) -> list[StoredMessage]:
    """The messages that nothing carried, oldest first; none that is to nobody.

    Those that were sealed under another secret, by a node of another data directory, are left out, unless
    all were: who asks has the wrong secret then. Raises Unavailable, ConfigurationError.
    """
    return [kept for kept in await _queued_messages(redis, sealer, MESSAGES_KEPT) if kept.queued.message.to]


async def dead_letters(redis: Redis, sealer: Sealer) -> list[StoredMessage]:
    """The messages that were given up, oldest first. Raises Unavailable, ConfigurationError."""
    found = [
        each for channel in Channel for each in await _queued_messages(redis, sealer, messages_dead(channel))
    ]
    return sorted(found, key=lambda dead: dead.since_ms)


async def _queued_messages(redis: Redis, sealer: Sealer, stream: str) -> list[StoredMessage]:
    with translate_redis_errors():
        async with asyncio.timeout(COMMAND_S):
            # As many as there may be, so at most KEPT.
            entries: Any = await redis.xrange(stream)
    found: list[StoredMessage] = []
    refusal: ConfigurationError | None = None
    for _, fields in entries:
        try:
            queued = QueuedMessage.opened(fields[b"m"].decode(), sealer)
            found.append(StoredMessage(queued, int(fields[b"c"]), fields.get(b"p", b"").decode()))
        except ConfigurationError as error:
            refusal = error
        except (KeyError, ValueError):
            # No letter: somebody else wrote into the stream.
            continue
    if refusal is not None and not found:
        raise refusal
    return found


async def run_script(redis: Redis, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
    """Run a script that writes. Raises Unavailable."""
    with translate_redis_errors(writing=True):
        async with asyncio.timeout(COMMAND_S):
            rest = (len(keys), *keys, *arguments)
            try:
                return await redis.execute_command("EVALSHA", script.sha, *rest)  # type: ignore[no-untyped-call]
            except NoScriptError:
                # Nothing was executed, so sending it again in full repeats nothing.
                return await redis.execute_command("EVAL", script.text, *rest)  # type: ignore[no-untyped-call]


GROUP: Final = "carriers"
CONSUMER: Final = "node"
"""All nodes are one consumer: whose an entry is shows in how long ago somebody took it."""
PROMOTED: Final = 200
"""Maximum number of messages that one step puts back into the queue."""
DEAD_LETTERS_MS: Final = 7 * DAY_MS
LOG_S: Final = 60.0
"""Between two log lines about entries that are no letters."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message that this node has to send."""

    id: str
    sealed: str
    tries: int
    """How often it was tried before."""
    since_ms: int
    """When it was given to us, in ms of Redis' clock."""


class Queue:
    """The messages of one channel. Methods raise Unavailable; those that write also NotConfirmed."""

    def __init__(self, redis: Redis, channel: Channel, clock: Clock = MACHINE_CLOCK) -> None:
        self.malformed = 0
        """Number of malformed entries that were dropped."""
        self._redis = redis
        self._channel = channel
        self._seldom = Seldom(LOG_S, clock)
        self._name = message_queue(channel)
        self._waiting = messages_waiting(channel)
        self._dead = messages_dead(channel)

    async def take(self, count: int, wait_ms: int) -> list[Entry]:
        """At most `count` messages that no node has; waits for the first at most `wait_ms`."""
        try:
            with translate_redis_errors():
                async with asyncio.timeout(wait_ms / 1000 + COMMAND_S):
                    found: Any = await self._redis.xreadgroup(
                        GROUP, CONSUMER, {self._name: ">"}, count=count, block=wait_ms
                    )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._make_group()
            return []
        return await self._queued_messages(found[0][1]) if found else []

    async def take_over(self, count: int, idle_ms: int) -> list[Entry]:
        """At most `count` messages that a node took `idle_ms` ago and did not finish."""
        try:
            with translate_redis_errors():
                async with asyncio.timeout(COMMAND_S):
                    found: Any = await self._redis.xautoclaim(
                        self._name, GROUP, CONSUMER, idle_ms, count=count
                    )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._make_group()
            return []
        return await self._queued_messages(found[1])

    async def done(self, entry: Entry) -> None:
        """It was carried."""
        await run_script(self._redis, FINISH_MESSAGE, [self._name], [GROUP, entry.id])

    async def defer(self, entry: Entry, delay_ms: int) -> None:
        """It is tried again after `delay_ms`, by whichever node."""
        member = f"{entry.tries + 1} {entry.since_ms} {entry.sealed}"
        await run_script(
            self._redis, DEFER_MESSAGE, [self._name, self._waiting], [GROUP, entry.id, member, delay_ms]
        )

    async def dead_letter(self, entry: Entry, problem: str) -> None:
        """It is not tried any more."""
        about: list[Argument] = [GROUP, entry.id, entry.sealed, entry.since_ms, problem]
        await run_script(
            self._redis, DEAD_LETTER_MESSAGE, [self._name, self._dead], [*about, MAX_STORED, DEAD_LETTERS_MS]
        )

    async def promote(self) -> None:
        """Put what is due to be tried again back into the queue."""
        await run_script(self._redis, PROMOTE_MESSAGES, [self._name, self._waiting], [PROMOTED])

    async def length(self) -> int:
        """Number of messages that are not sent yet."""
        with translate_redis_errors():
            async with asyncio.timeout(COMMAND_S):
                queued: int = await self._redis.xlen(self._name)
                waiting: int = await self._redis.zcard(self._waiting)
                return queued + waiting

    async def now_ms(self) -> int:
        """Redis' clock."""
        with translate_redis_errors():
            async with asyncio.timeout(COMMAND_S):
                seconds, microseconds = await self._redis.time()
                return int(seconds) * 1000 + int(microseconds) // 1000

    async def _queued_messages(self, found: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
        """The well-formed messages. Malformed entries are dropped, so that they block no others."""
        queued_messages: list[Entry] = []
        for entry_id, fields in found:
            try:
                queued_messages.append(_entry(entry_id, fields))
            except (KeyError, ValueError):
                await run_script(self._redis, FINISH_MESSAGE, [self._name], [GROUP, entry_id])
                self.malformed += 1
                if self._seldom.may("malformed"):
                    _log.error("messages.malformed", channel=self._channel.value, entry=entry_id.decode())
        return queued_messages

    async def _make_group(self) -> None:
        """From the first entry on: what came before there was a group is carried too."""
        try:
            with translate_redis_errors(writing=True):
                async with asyncio.timeout(COMMAND_S):
                    await self._redis.xgroup_create(self._name, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    """Raises KeyError or ValueError for a malformed entry."""
    return Entry(entry_id.decode(), fields[b"m"].decode(), int(fields[b"n"]), int(fields[b"c"]))
