"""Where messages are given to: sealed here, written down by the change that causes them (`post` in
`store/script.py`), and put into their queues by the relay before that change is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from homewire.errors import ConfigurationError, Unavailable
from homewire.messages.message import Channel, Message, MessageKind, QueuedMessage
from homewire.messages.models import Posting, PostingQueue
from homewire.redis.connect import COMMAND_S, translate_redis_errors
from homewire.redis.pipeline import AutoPipeline
from homewire.sealing import Sealer
from homewire.store.keys import MESSAGES_KEPT, message_queue, messages_copied, messages_dead, messages_waiting
from homewire.store.script import Script

QUEUED: Final = 100_000
"""The most messages that wait to be carried, by channel; beyond it 503, and nothing is changed. Those of
changes at the same moment may come on top."""
KEPT: Final = 1_000
"""The most messages that are kept for `homewire outbox`; the oldest go first."""
KEPT_MS: Final = 24 * 60 * 60 * 1000

Argument = str | int | bytes


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A letter that nothing carried, and when it was given to us, in ms since 1970."""

    letter: QueuedMessage
    since_ms: int
    problem: str = ""
    """Why it was given up."""


class MessageOutbox:
    """Takes messages: for the channels `carried` into a queue, others to be looked at.

    `base_url` is where those who get messages reach this homewire.
    """

    def __init__(self, redis: Redis, sealer: Sealer, base_url: str, carried: Collection[Channel]) -> None:
        self._trips = AutoPipeline(redis)
        self._sealer = sealer
        self._base_url = base_url
        self._carried = carried

    async def require_room(self, kind: MessageKind) -> None:
        """Raise Unavailable when too many messages of that channel wait already."""
        channel = Channel.of(kind)
        if channel not in self._carried:
            return
        with translate_redis_errors():
            queued, waiting = await self._trips.ask(
                ("XLEN", message_queue(channel)), ("ZCARD", messages_waiting(channel))
            )
        if queued + waiting >= QUEUED:
            raise Unavailable(problem="too many messages wait to be sent")

    def posting(self, message: Message) -> Posting:
        """The message, sealed, for the change that causes it."""
        channel = Channel.of(message.kind)
        sealed = QueuedMessage.new(message, self._base_url).sealed(self._sealer)
        return Posting(PostingQueue(channel if channel in self._carried else PostingQueue.KEPT), sealed)


def queue_call(
    project_id: int, queue: PostingQueue, remembered_ms: int, letters: Sequence[Argument]
) -> tuple[list[str], list[Argument]]:
    """Keys and arguments of QUEUE; `letters` are places in the outbox of the project and what is sealed."""
    if queue is PostingQueue.KEPT:
        return [MESSAGES_KEPT, messages_copied(project_id)], [remembered_ms, KEPT, KEPT_MS, *letters]
    return [message_queue(queue), messages_copied(project_id)], [remembered_ms, 0, 0, *letters]


async def kept_letters(redis: Redis, sealer: Sealer) -> list[KeptLetter]:
    """The messages that nothing carried, oldest first; none that is to nobody.

    Those that were sealed under another secret, by a node of another data directory, are left out, unless
    all were: who asks has the wrong secret then. Raises Unavailable, ConfigurationError.
    """
    return [kept for kept in await _letters(redis, sealer, MESSAGES_KEPT) if kept.letter.message.to]


async def dead_letters(redis: Redis, sealer: Sealer) -> list[KeptLetter]:
    """The messages that were given up, oldest first. Raises Unavailable, ConfigurationError."""
    found = [each for channel in Channel for each in await _letters(redis, sealer, messages_dead(channel))]
    return sorted(found, key=lambda dead: dead.since_ms)


async def _letters(redis: Redis, sealer: Sealer, stream: str) -> list[KeptLetter]:
    with translate_redis_errors():
        async with asyncio.timeout(COMMAND_S):
            # As many as there may be, so at most KEPT.
            entries: Any = await redis.xrange(stream)
    found: list[KeptLetter] = []
    refusal: ConfigurationError | None = None
    for _, fields in entries:
        try:
            letter = QueuedMessage.opened(fields[b"m"].decode(), sealer)
            found.append(KeptLetter(letter, int(fields[b"c"]), fields.get(b"p", b"").decode()))
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
