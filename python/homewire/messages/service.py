"""The message service of a node: one worker for each channel sends its messages, with retries.

A message that can't be sent becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from redis.asyncio import Redis

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import is_cancelling
from homewire.errors import ConfigurationError, NotSent, Unavailable, Undeliverable
from homewire.messages.models import Channel
from homewire.messages.queue import MessageOutbox, MessageQueue, QueuedMessage, TakenMessage
from homewire.messages.senders import Sender, senders
from homewire.projects.models import Project
from homewire.redis.connect import share
from homewire.sealing import Sealer
from homewire.settings import Settings

IN_FLIGHT: Final = 8
"""Maximum messages that one node sends concurrently, by channel."""
CHECK_S: Final = 1.0
"""Interval of checks for messages that are due again, and for messages of stopped nodes."""
FINISHING_S: Final = 5.0
"""How long the steps in Redis after a try may take before another node takes the message over."""
LAST_S: Final = 2.0
"""How long tries in progress may take when the node stops."""
MAX_PAUSE_S: Final = 300.0
"""Maximum delay between two tries."""

FindProject = Callable[[int], Awaitable[Project | None]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retries of a message. Times are in seconds."""

    attempt_s: float
    """Maximum time of one try."""
    tries: int
    """Maximum number of tries."""
    pause_s: float
    """Delay between the first two tries; it doubles with each."""
    age_s: float
    """Maximum age of an unsent message."""


class MessageWorker:
    """Sends the messages of `queue` with `sender` until cancelled."""

    def __init__(
        self,
        channel: Channel,
        queue: MessageQueue,
        sender: Sender,
        sealer: Sealer,
        find_project: FindProject,
        retry_policy: RetryPolicy,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._sender = sender
        self._sealer = sealer
        self._find_project = find_project
        self._retry_policy = retry_policy
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._check_at = float("-inf")
        self._sent = self._failed = self._dead = self._expired = self._waiting = 0

    async def run(self) -> None:
        """Send until cancelled. While Redis is unavailable, the worker waits."""
        try:
            # (redis-py swallows a cancellation now and then.)
            while not is_cancelling():
                try:
                    await self._round()
                except Unavailable as error:
                    # Not a warning: other parts of the node report that Redis is unavailable.
                    _log.debug("messages wait for Redis", channel=self._channel.value, problem=error.reason)
                    await asyncio.sleep(CHECK_S)
        finally:
            await self._finish()

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        name = self._channel.value
        return {
            f"{name}_sent": self._sent,
            f"{name}_failed": self._failed,
            f"{name}_dead_letters": self._dead,
            f"{name}_expired": self._expired,
            f"{name}_malformed": self._queue.malformed,
            f"{name}_waiting": self._waiting,
        }

    async def _round(self) -> None:
        now = self._clock.monotonic()
        if now >= self._check_at:
            self._check_at = now + CHECK_S
            await self._check()
        free = IN_FLIGHT - len(self._under_way)
        if free > 0:
            self._begin(await self._queue.take(free, round(CHECK_S * 1000)))
        else:
            await asyncio.wait(self._under_way, timeout=CHECK_S, return_when=asyncio.FIRST_COMPLETED)

    async def _check(self) -> None:
        await self._queue.promote()
        free = IN_FLIGHT - len(self._under_way)
        if free > 0:
            # A message in progress on this node is never taken for so long, because a try is bounded.
            idle_s = self._retry_policy.attempt_s + FINISHING_S
            self._begin(await self._queue.take_over(free, round(idle_s * 1000)))
        self._waiting = await self._queue.length()

    def _begin(self, messages: list[TakenMessage]) -> None:
        for taken in messages:
            task = asyncio.create_task(self._deliver(taken))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _deliver(self, taken: TakenMessage) -> None:
        """Try once and store the outcome. Without Redis, another node takes the message over later."""
        try:
            try:
                async with asyncio.timeout(self._retry_policy.attempt_s):
                    await self._attempt(taken)
            except Undeliverable as error:
                await self._abandon(taken, str(error))
            except (NotSent, TimeoutError, ConfigurationError, Unavailable) as error:
                await self._put_off(taken, str(error) or type(error).__name__)
            except Exception as error:
                # A fault of homewire must not stop the worker: it counts as a failed try.
                _log.exception(
                    "a try to send a message raised an unexpected error", channel=self._channel.value
                )
                await self._put_off(taken, type(error).__name__)
            else:
                await self._queue.done(taken)
        except Unavailable:
            return

    async def _attempt(self, taken: TakenMessage) -> None:
        queued = QueuedMessage.opened(taken.sealed, self._sealer)
        message = queued.message
        if not message.to:
            return
        if 0 < message.good_until_ms <= self._clock.now_ms():
            # Its code or link no longer works. The user can request another message.
            self._expired += 1
            _log.warning("a message expired before it was sent", channel=self._channel.value, entry=taken.id)
            return
        project = await self._find_project(message.project_id)
        if project is not None:
            await self._sender.send(queued, project)
            self._sent += 1

    async def _put_off(self, taken: TakenMessage, problem: str) -> None:
        self._failed += 1
        pause_s = min(self._retry_policy.pause_s * 2**taken.tries, MAX_PAUSE_S) * random.uniform(0.8, 1.2)  # noqa: S311
        age_s = (await self._queue.now_ms() - taken.since_ms) / 1000
        if taken.tries + 1 >= self._retry_policy.tries or age_s + pause_s > self._retry_policy.age_s:
            await self._dead_letter(taken, problem)
        else:
            await self._queue.defer(taken, round(pause_s * 1000))

    async def _abandon(self, taken: TakenMessage, problem: str) -> None:
        self._failed += 1
        await self._dead_letter(taken, problem)

    async def _dead_letter(self, taken: TakenMessage, problem: str) -> None:
        await self._queue.dead_letter(taken, problem)
        self._dead += 1
        # Without recipient and content: `homewire messages --dead` shows them.
        _log.error(
            "a message became a dead letter",
            channel=self._channel.value,
            entry=taken.id,
            tries=taken.tries + 1,
            problem=problem,
        )

    async def _finish(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=LAST_S)
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._sender.close()


@dataclass(frozen=True, slots=True)
class MessageService:
    """The outbox of messages and the workers that send them, on one node."""

    outbox: MessageOutbox
    workers: Sequence[MessageWorker]
    """One for each channel with a sender."""
    redis: Redis
    """The workers' own client, because a read of a queue occupies a connection while it waits."""
    without_sender: Sequence[Channel]

    @classmethod
    def of(
        cls,
        settings: Settings,
        redis: Redis,
        find_project: FindProject,
        clock: Clock = MACHINE_CLOCK,
    ) -> MessageService:
        """The configured service. `redis` is the node's client. Raises ConfigurationError."""
        sealer = Sealer.of(settings)
        by_channel = senders(settings, clock)
        # Each channel has a read that waits.
        own = share(redis, max_connections=1 + len(by_channel))
        retry_policy = RetryPolicy(
            settings.message_attempt_s,
            settings.message_tries,
            settings.message_backoff_s,
            settings.message_age_s,
        )
        return cls(
            MessageOutbox(redis, sealer, settings.public_base_url, by_channel),
            [
                MessageWorker(
                    channel,
                    MessageQueue(own, channel, clock),
                    sender,
                    sealer,
                    find_project,
                    retry_policy,
                    clock,
                )
                for channel, sender in by_channel.items()
            ],
            own,
            [channel for channel in Channel if channel not in by_channel],
        )

    async def run(self) -> None:
        """Send messages until cancelled; returns at once without a sender."""
        if self.without_sender:
            _log.info(
                "messages.no_sender",
                channels=[channel.value for channel in self.without_sender],
                settings="HOMEWIRE_SMTP_HOST, HOMEWIRE_SMS_URL",
            )
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self.workers:
                    group.create_task(worker.run())
        finally:
            await self.redis.aclose()

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        metrics: dict[str, int] = {}
        for worker in self.workers:
            metrics.update(worker.metrics())
        return metrics
