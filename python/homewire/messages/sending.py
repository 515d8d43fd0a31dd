"""Sends the messages of one channel: retries with growing delays, then makes a dead letter.

All of the room on one node: where messages are given to, and who carries them.
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
from homewire.messages.message import Channel, QueuedMessage
from homewire.messages.queue import Entry, MessageOutbox, Queue
from homewire.messages.senders import Sender, senders
from homewire.projects.models import Project
from homewire.redis.connect import connect
from homewire.sealing import Sealer
from homewire.settings import Settings

IN_FLIGHT: Final = 8
"""Maximum messages that one node sends concurrently, by channel."""
CHECK_S: Final = 1.0
"""How often a node looks for what is due again, and for what others left."""
FINISHING_S: Final = 5.0
"""What the steps in Redis behind a try may take until others believe that its node died."""
LAST_S: Final = 2.0
"""What is under way at a stop has this long."""
MAX_PAUSE_S: Final = 300.0

FindProject = Callable[[int], Awaitable[Project | None]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and for how long, sending is tried."""

    attempt_s: float
    """One try."""
    tries: int
    """The most."""
    pause_s: float
    """Between the first two; the next are twice as long each."""
    age_s: float
    """All of it."""


class MessageWorker:
    """Sends the messages of `queue` with `sender` until cancelled."""

    def __init__(
        self,
        channel: Channel,
        queue: Queue,
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
        """Carry until cancelled. A Redis that is away is waited for."""
        try:
            # (redis-py swallows a cancellation now and then.)
            while not is_cancelling():
                try:
                    await self._round()
                except Unavailable as error:
                    # Everybody else says so already; here it only has to be waited for.
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
            # An entry that is being carried here is never that old: a try is bounded.
            idle_s = self._retry_policy.attempt_s + FINISHING_S
            self._begin(await self._queue.take_over(free, round(idle_s * 1000)))
        self._waiting = await self._queue.length()

    def _begin(self, entries: list[Entry]) -> None:
        for entry in entries:
            task = asyncio.create_task(self._deal_with(entry))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _deal_with(self, entry: Entry) -> None:
        """One try, and what follows from it. What Redis does not hear of is another's after a while."""
        try:
            try:
                async with asyncio.timeout(self._retry_policy.attempt_s):
                    await self._attempt(entry)
            except Undeliverable as error:
                await self._abandon(entry, str(error))
            except (NotSent, TimeoutError, ConfigurationError, Unavailable) as error:
                await self._put_off(entry, str(error) or type(error).__name__)
            except Exception as error:
                # What nobody foresaw ends with the tries, too, and keeps no other letter from being carried.
                _log.exception("a message could not be dealt with", channel=self._channel.value)
                await self._put_off(entry, type(error).__name__)
            else:
                await self._queue.done(entry)
        except Unavailable:
            return

    async def _attempt(self, entry: Entry) -> None:
        queued = QueuedMessage.opened(entry.sealed, self._sealer)
        message = queued.message
        if not message.to:
            return
        if 0 < message.good_until_ms <= self._clock.now_ms():
            # Whoever still wants it has asked for another one.
            self._expired += 1
            _log.warning("a message expired before it was sent", channel=self._channel.value, entry=entry.id)
            return
        project = await self._find_project(message.project_id)
        if project is not None:
            await self._sender.carry(queued, project)
            self._sent += 1

    async def _put_off(self, entry: Entry, problem: str) -> None:
        self._failed += 1
        pause_s = min(self._retry_policy.pause_s * 2**entry.tries, MAX_PAUSE_S) * random.uniform(0.8, 1.2)  # noqa: S311
        age_s = (await self._queue.now_ms() - entry.since_ms) / 1000
        if entry.tries + 1 >= self._retry_policy.tries or age_s + pause_s > self._retry_policy.age_s:
            await self._dead_letter(entry, problem)
        else:
            await self._queue.defer(entry, round(pause_s * 1000))

    async def _abandon(self, entry: Entry, problem: str) -> None:
        self._failed += 1
        await self._dead_letter(entry, problem)

    async def _dead_letter(self, entry: Entry, problem: str) -> None:
        await self._queue.dead_letter(entry, problem)
        self._dead += 1
        # Neither to whom nor what: the list of dead messages has it, sealed.
        _log.error(
            "a message was given up",
            channel=self._channel.value,
            entry=entry.id,
            tries=entry.tries + 1,
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
class Delivery:
    """The post of a node and its couriers: one for each channel that is set up."""

    post: MessageOutbox
    workers: Sequence[MessageWorker]
    redis: Redis
    """The couriers' own connections: a wait for messages holds one for good."""
    kept: Sequence[Channel]
    """The channels without a sender."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        redis: Redis,
        url: str,
        find_project: FindProject,
        clock: Clock = MACHINE_CLOCK,
    ) -> Delivery:
        """As the settings have it; `redis` is the node's, at `url`. Raises ConfigurationError."""
        sealer = Sealer.of(settings)
        carried = senders(settings, clock)
        own = connect(url, max_connections=(1 + IN_FLIGHT) * max(1, len(carried)))
        retry_policy = RetryPolicy(
            settings.message_attempt_s,
            settings.message_tries,
            settings.message_backoff_s,
            settings.message_age_s,
        )
        return cls(
            MessageOutbox(redis, sealer, settings.public_base_url, carried),
            [
                MessageWorker(
                    channel, Queue(own, channel, clock), sender, sealer, find_project, retry_policy, clock
                )
                for channel, sender in carried.items()
            ],
            own,
            [channel for channel in Channel if channel not in carried],
        )

    async def run(self) -> None:
        """Carry messages until cancelled; ends at once where nothing does."""
        if self.kept:
            _log.info(
                "messages.no_sender",
                channels=[channel.value for channel in self.kept],
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
