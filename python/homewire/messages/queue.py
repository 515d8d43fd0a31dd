"""The queues of messages, one for each channel, and the stored messages of channels without a sender.

A message stays in the queue until it was sent, was put off or became a dead letter. Each of these is one step
in Redis. When a node stops in the middle of a try, another node takes its messages over after a while, so a
message is sent at least once.

All keys of one script lie in the slot of `{notify}`. Times are in ms of Redis' clock, because the clocks of
nodes may differ. An entry of a queue has the sealed message `m`, the number of earlier tries `n`, and the
time `c` at which the message was queued. Messages that wait for their next try are in a sorted set, as
`<tries> <since> <sealed>`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import ConfigurationError, Unavailable
from homewire.log import Seldom
from homewire.messages.models import Channel, Message, MessageKind, OutboxMessage, OutboxQueue
from homewire.redis.connect import translate_redis_errors
from homewire.redis.pipeline import AutoPipeline
from homewire.redis.server_pipeline import COMMAND_S
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
"""Maximum number of unsent messages of one channel; beyond it 503, and nothing is changed.

Changes that run at the same time may exceed it by their own messages."""
MAX_STORED: Final = 1_000
"""Maximum number of messages that are stored for `homewire messages`; the oldest are deleted."""
STORED_MS: Final = 24 * 60 * 60 * 1000

Argument = str | int | bytes


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A queued message, with what is the same for every try."""

    id: str
    """By which a receiver recognises a repetition."""
    message: Message
    base_url: str
    """The URL of this homewire for the recipient. Links in the message begin with it."""

    def __repr__(self) -> str:
        return f"QueuedMessage({self.id}, {self.message})"

    @classmethod
    def new(cls, message: Message, base_url: str) -> QueuedMessage:
        """Give the message an id."""
        return cls(secrets.token_hex(16), message, base_url)

    def sealed(self, sealer: Sealer) -> str:
        """The encrypted form that is stored in Redis. Raises ConfigurationError."""
        return sealer.seal(_encode(self).decode())

    @classmethod
    def opened(cls, sealed: str, sealer: Sealer) -> QueuedMessage:
        """Decrypt the result of `sealed`. Raises ConfigurationError if another deployment sealed it."""
        try:
            return _decode(sealer.open(sealed))
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                "a stored message is of a version that this homewire can't read"
            ) from error


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(QueuedMessage).decode


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that was stored for want of a sender, or a dead letter."""

    queued: QueuedMessage
    since_ms: int
    """When it was stored or queued, in ms since 1970."""
    problem: str = ""
    """Why it became a dead letter."""


class MessageOutbox:
    """Prepares messages for the transactional outbox.

    Messages of `channels` go to a queue. Messages of other channels are stored for `homewire messages`. Links
    in messages begin with `base_url`.
    """

    def __init__(self, redis: Redis, sealer: Sealer, base_url: str, channels: Collection[Channel]) -> None:
        self._pipeline = AutoPipeline(redis)
        self._sealer = sealer
        self._base_url = base_url
        self._channels = channels

    async def require_room(self, kind: MessageKind) -> None:
        """Check that the queue of this kind of message has room. Raises Unavailable."""
        channel = Channel.of(kind)
        if channel not in self._channels:
            return
        with translate_redis_errors():
            queued, waiting = await self._pipeline.ask(
                ("XLEN", message_queue(channel)), ("ZCARD", messages_waiting(channel))
            )
        if queued + waiting >= QUEUED:
            raise Unavailable(problem="too many messages wait to be sent")

    def prepare(self, message: Message) -> OutboxMessage:
        """The sealed message, for the change that causes it."""
        channel = Channel.of(message.kind)
        sealed = QueuedMessage.new(message, self._base_url).sealed(self._sealer)
        return OutboxMessage(
            OutboxQueue(channel if channel in self._channels else OutboxQueue.STORED), sealed
        )


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
    """The stored messages that have a recipient, oldest first.

    Messages that were sealed under another secret key are left out. If all were, the caller has the wrong
    key. Raises Unavailable, and ConfigurationError for the wrong key.
    """
    return [each for each in await _read_stream(redis, sealer, MESSAGES_KEPT) if each.queued.message.to]


async def dead_letters(redis: Redis, sealer: Sealer) -> list[StoredMessage]:
    """The dead letters of all channels, oldest first. Raises Unavailable, ConfigurationError."""
    found = [
        each for channel in Channel for each in await _read_stream(redis, sealer, messages_dead(channel))
    ]
    return sorted(found, key=lambda dead: dead.since_ms)


async def _read_stream(redis: Redis, sealer: Sealer, stream: str) -> list[StoredMessage]:
    with translate_redis_errors():
        async with asyncio.timeout(COMMAND_S):
            # Whole: it has at most MAX_STORED entries.
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
            # A malformed entry: homewire did not write it.
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
"""All nodes are one consumer. How long ago an entry was taken tells whether its node still works on it."""
PROMOTED: Final = 200
"""Maximum number of messages that one call of `promote` puts back into the queue."""
DEAD_LETTERS_MS: Final = 7 * DAY_MS
LOG_S: Final = 60.0
"""Minimum time between two log lines about malformed entries."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TakenMessage:
    """A message that this node has to send."""

    id: str
    sealed: str
    tries: int
    """The number of earlier tries."""
    since_ms: int
    """When it was queued, in ms of Redis' clock."""


class MessageQueue:
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

    async def take(self, count: int, wait_ms: int) -> list[TakenMessage]:
        """Take at most `count` messages. Waits at most `wait_ms` for the first."""
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
        return await self._well_formed(found[0][1]) if found else []

    async def take_over(self, count: int, idle_ms: int) -> list[TakenMessage]:
        """Take at most `count` messages that a node took `idle_ms` ago or earlier and did not finish."""
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
        return await self._well_formed(found[1])

    async def done(self, taken: TakenMessage) -> None:
        """Remove a message that was sent or needs no sending."""
        await run_script(self._redis, FINISH_MESSAGE, [self._name], [GROUP, taken.id])

    async def defer(self, taken: TakenMessage, delay_ms: int) -> None:
        """Put a message off: any node tries it again after `delay_ms`."""
        member = f"{taken.tries + 1} {taken.since_ms} {taken.sealed}"
        await run_script(
            self._redis, DEFER_MESSAGE, [self._name, self._waiting], [GROUP, taken.id, member, delay_ms]
        )

    async def dead_letter(self, taken: TakenMessage, problem: str) -> None:
        """Make a message a dead letter, because of `problem`."""
        about: list[Argument] = [GROUP, taken.id, taken.sealed, taken.since_ms, problem]
        await run_script(
            self._redis, DEAD_LETTER_MESSAGE, [self._name, self._dead], [*about, MAX_STORED, DEAD_LETTERS_MS]
        )

    async def promote(self) -> None:
        """Put messages whose next try is due back into the queue."""
        await run_script(self._redis, PROMOTE_MESSAGES, [self._name, self._waiting], [PROMOTED])

    async def length(self) -> int:
        """The number of unsent messages."""
        with translate_redis_errors():
            async with asyncio.timeout(COMMAND_S):
                queued: int = await self._redis.xlen(self._name)
                waiting: int = await self._redis.zcard(self._waiting)
                return queued + waiting

    async def now_ms(self) -> int:
        """The time of Redis' clock, in ms since 1970."""
        with translate_redis_errors():
            async with asyncio.timeout(COMMAND_S):
                seconds, microseconds = await self._redis.time()
                return int(seconds) * 1000 + int(microseconds) // 1000

    async def _well_formed(self, found: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[TakenMessage]:
        """The well-formed messages. Malformed entries are dropped, so that they block no others."""
        messages: list[TakenMessage] = []
        for entry_id, fields in found:
            try:
                messages.append(_taken(entry_id, fields))
            except (KeyError, ValueError):
                await run_script(self._redis, FINISH_MESSAGE, [self._name], [GROUP, entry_id])
                self.malformed += 1
                if self._seldom.may("malformed"):
                    _log.error("messages.malformed", channel=self._channel.value, entry=entry_id.decode())
        return messages

    async def _make_group(self) -> None:
        """Create the group at the first entry, so that messages from before its creation are sent, too."""
        try:
            with translate_redis_errors(writing=True):
                async with asyncio.timeout(COMMAND_S):
                    await self._redis.xgroup_create(self._name, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _taken(entry_id: bytes, fields: dict[bytes, bytes]) -> TakenMessage:
    """Raises KeyError or ValueError for a malformed entry."""
    return TakenMessage(entry_id.decode(), fields[b"m"].decode(), int(fields[b"n"]), int(fields[b"c"]))
