"""The relay copies the outboxes of projects to the shards.

The script of a change writes control records, events and messages to the outbox of the project, in the same
step as the change. The outbox is in the slot of the project and the shards are in others, so copying is a
second step, and the process may die in between. Hence three steps around every such change:

1. `expect` notes that the outbox of the project may soon have entries.
2. The script writes the change and its outbox entries, or neither.
3. `announce` copies every entry, oldest first, to its shards or to a queue of messages. The change is
   answered when all copies are confirmed; then the entries are deleted. The script answers the entries, so
   that a change takes two round trips. Where there are too many, they are read from the outbox.

`run`, on every node, does step 3 for entries that a dead process left. Several relays may copy one outbox at
once. They keep the order and lose no entry: a relay copies a page to each shard in one script, and reads the
next page after this one is deleted. The script also notes beside the shard what was copied last, so that
nothing is copied twice.

A key can be revoked on a Redis at its memory limit, so all of this runs there, too (`allow-oom`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError

from homewire.access_changes.records import OutboxRecord, parse
from homewire.bus.shards import PENDING, copied_key, events_key
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import SingleFlight, is_cancelling
from homewire.errors import NotConfirmed, Unavailable
from homewire.log import Seldom
from homewire.messages.models import OutboxMessage, OutboxQueue
from homewire.messages.queue import QUEUE, queue_call
from homewire.redis.connect import translate_redis_errors
from homewire.redis.pipeline import AutoPipeline, Call
from homewire.redis.server_pipeline import COMMAND_S
from homewire.store.keys import DELETED_PROJECTS, PROJECTS, ProjectSlot, ids_among
from homewire.store.script import lua, standalone

if TYPE_CHECKING:
    from redis.asyncio import Redis

EXPECT: Final = standalone(lua(__package__, "expect"))
FORGET: Final = standalone(lua(__package__, "forget"))
COPY: Final = standalone(lua(__package__, "copy"))

INTERVAL_S: Final = 0.5
"""Between two checks of the pending projects."""
SWEEP_S: Final = 60.0
"""Between two checks of all projects, for entries of projects that are not noted any more."""
PENDING_TTL_MS: Final = 30_000
"""How long a project with an empty outbox stays noted. An expected change takes at most a few seconds."""
EXPECT_TTL_S: Final = 10.0
"""How long one `expect` holds for further changes of its project by this process. With the 4 s that a
change may take it stays well below PENDING_TTL_MS. It saves each change a round trip."""
MAX_EXPECTED: Final = 10_000
"""Projects whose `expect` this process remembers."""
ENTRIES: Final = 100
"""Outbox entries copied at a time."""
CALLS: Final = 1000
"""Shards written in one pipeline."""
PAGE: Final = 500
"""Projects checked in one round trip. FORGET touches each twice."""
LOG_S: Final = 60.0
"""Between two log lines about the same failure."""

COPIED_TTL_MS: Final = 600_000
"""How long the positions copied to a shard are stored: some 300, while concurrent relays have at most two
pages of 100. A later relay copies entries again that were copied and not deleted. Readers ignore an older
record, but deliver an event twice."""

OutboxEntry = tuple[bytes, dict[bytes, bytes]]
Answered = list[Any] | None
"""The entries of an outbox as a script answers them; None: it answers none."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RelayStats:
    """Plain counters of one `Relay`, read by the metrics page."""

    records: int = 0
    """Outbox entries with all copies confirmed."""
    copies: int = 0
    late_records: int = 0
    """Records that `run` copied, because the process of their change did not."""
    messages: int = 0
    """Messages that were put into a queue."""
    messages_without_sender: int = 0
    """Messages that were stored because no sender is configured."""
    malformed: int = 0
    failures: int = 0
    """Failed rounds of `run`, and outboxes that it could not relay."""


class Relay:
    """Copies outboxes to `shards` shards, with the client `redis`."""

    def __init__(self, redis: Redis, shards: int, clock: Clock = MACHINE_CLOCK) -> None:
        self._clock = clock
        self.stats = RelayStats()
        self._pipeline = AutoPipeline(redis, is_replicated=True)
        self._shards = shards
        self._draining = SingleFlight(self._drain, COMMAND_S, after=self._delete_copied)
        self._expecting = SingleFlight(self._note_expected, COMMAND_S)
        self._copied: dict[int, list[bytes]] = {}
        """Entries with confirmed copies that are still in the outbox, by project id."""
        self._expected_until: dict[int, float] = {}
        self._notify: Callable[[Collection[int]], None] | None = None
        self._seldom = Seldom(LOG_S, clock)

    def on_records(self, notify: Callable[[Collection[int]], None]) -> None:
        """Call `notify` with the shards that records were copied to, before their change is answered."""
        self._notify = notify

    def is_expected(self, project_id: int) -> bool:
        """Whether the last `expect` of the project still holds."""
        return self._clock.monotonic() < self._expected_until.get(project_id, float("-inf"))

    async def expect(self, project_id: int) -> None:
        """Note that a change will write to the outbox: `run` finds it after a crash. Raises Unavailable."""
        if not self.is_expected(project_id):
            with translate_redis_errors():
                await self._expecting.ask(project_id, None)

    async def announce(self, project_id: int, deadline: float = math.inf, entries: Answered = None) -> None:
        """Copy the entries of the project's outbox. They are deleted in the next round trip.

        `entries` are all entries after the change, as its script answered them; None: they are read.
        Raises NotConfirmed if Redis did not confirm all copies by `deadline` (loop time). The entries stay,
        and `run` copies them.
        """
        try:
            await self._draining.ask(project_id, entries, deadline)
        except (RedisError, OSError) as error:
            # A different Redis may answer by now, which does not know the noted projects.
            self._expected_until.pop(project_id, None)
            raise NotConfirmed from error

    async def close(self) -> None:
        """Delete copied entries, as far as Redis is available. To be called before the client is closed."""
        await self._draining.close()

    async def run(self) -> None:
        """Copy entries that dead processes left, until cancelled, also after times without Redis."""
        sweep_at = float("-inf")
        while not is_cancelling():
            now = self._clock.monotonic()
            try:
                await self._relay_pending()
                if now >= sweep_at:
                    await self._relay_everywhere()
                    sweep_at = now + SWEEP_S
            except (RedisError, OSError, Unavailable) as error:
                self._note_failure(error)
            if not is_cancelling():
                await self._clock.sleep(INTERVAL_S)

    async def _relay_pending(self) -> None:
        async for projects in self._pending():
            empty = await self._relay_leftovers(projects)
            if empty:
                await self._pipeline.run(FORGET, ([PENDING], [PENDING_TTL_MS, *empty]))

    async def _relay_everywhere(self) -> None:
        for index in (PROJECTS, DELETED_PROJECTS):
            after = "-inf"
            while True:
                page = await self._send("ZRANGEBYSCORE", index, after, "+inf", "LIMIT", 0, PAGE)
                await self._relay_leftovers([int(each) for each in page])
                if len(page) < PAGE or is_cancelling():
                    break
                after = f"({int(page[-1])}"

    async def _pending(self) -> AsyncIterator[list[int]]:
        cursor = 0
        while not is_cancelling():
            cursor, found = await self._send("ZSCAN", PENDING, cursor, "COUNT", PAGE)
            projects = ids_among(member for member, _ in found)
            for start in range(0, len(projects), PAGE):
                yield projects[start : start + PAGE]
            if int(cursor) == 0:
                return

    async def _relay_leftovers(self, projects: Sequence[int]) -> list[int]:
        """Copy the entries of these outboxes. Returns the projects with empty outboxes."""
        lengths = await self._lengths(projects)
        for project_id, length in zip(projects, lengths, strict=True):
            if is_cancelling():
                break
            if length == 0:
                continue
            try:
                self.stats.late_records += await self._draining.ask(project_id, None)
            except (RedisError, OSError) as error:
                self._note_failure(error, project=project_id)
        return [each for each, length in zip(projects, lengths, strict=True) if length == 0]

    async def _note_expected(self, project_id: int, requests: Sequence[None]) -> Sequence[None]:
        if self.is_expected(project_id):
            return requests
        began = self._clock.monotonic()
        await self._pipeline.run(EXPECT, ([PENDING], [project_id]))
        if len(self._expected_until) >= MAX_EXPECTED:
            self._expected_until.clear()
        self._expected_until[project_id] = began + EXPECT_TTL_S
        return requests

    async def _drain(self, project_id: int, requests: Sequence[Answered]) -> list[int]:
        """Copy the entries of an outbox to their shards.

        Returns the number of entries for the first request, and 0 for the others.
        """
        answered = _all_answered(requests)
        if answered is None:
            relayed = await self._read_and_copy(project_id)
        else:
            copied = self._copied.get(project_id, [])
            entries = [entry for entry in answered if entry[0] not in copied]
            relayed = await self._copy_noted(project_id, entries)
        return [relayed, *[0] * (len(requests) - 1)]

    async def _read_and_copy(self, project_id: int) -> int:
        """Stops behind a page that is not full, so that a busy outbox does not delay the requests that wait:
        they copy the rest."""
        relayed = 0
        while True:
            if is_cancelling():
                raise asyncio.CancelledError
            entries = await self._entries(project_id)
            relayed += await self._copy_noted(project_id, entries)
            if len(entries) < ENTRIES:
                return relayed

    async def _copy_noted(self, project_id: int, entries: Sequence[OutboxEntry]) -> int:
        """Copy entries and note them for their deletion. Returns their number."""
        if entries:
            await self._copy(project_id, entries)
            self._copied.setdefault(project_id, []).extend([entry_id for entry_id, _ in entries])
        return len(entries)

    async def _entries(self, project_id: int) -> list[OutboxEntry]:
        """The oldest entries of an outbox that were not copied.

        Copied ones are deleted in the same round trip.
        """
        outbox, copied = ProjectSlot(project_id).outbox, self._copied.pop(project_id, None)
        oldest = ("XRANGE", outbox, "-", "+", "COUNT", ENTRIES)
        entries: list[OutboxEntry]
        if copied is None:
            entries = await self._send(*oldest)
        else:
            _, entries = await self._pipeline.ask(("XDEL", outbox, *copied), oldest)
        return entries

    async def _delete_copied(self, project_id: int) -> None:
        """Delete copied entries when no other call follows. After a failure a later call deletes them."""
        copied = self._copied.pop(project_id, None)
        if copied is not None:
            try:
                await self._send("XDEL", ProjectSlot(project_id).outbox, *copied)
            except (RedisError, OSError) as error:
                self._note_failure(error, project=project_id)

    async def _copy(self, project_id: int, entries: Sequence[OutboxEntry]) -> None:
        """Write the copies of all entries. Returns when all are confirmed."""
        by_shard: dict[int, list[str | int | bytes]] = {}
        by_queue: dict[OutboxQueue, list[str | int | bytes]] = {}
        # Shards that get control records: events do not change cached records.
        changed: set[int] = set()
        understood = 0
        for entry_id, fields in entries:
            entry = parse(project_id, entry_id, fields)
            if entry is None:
                self._note_malformed(project_id, entry_id)
                continue
            understood += 1
            if isinstance(entry, OutboxMessage):
                by_queue.setdefault(entry.queue, []).extend((entry_id, entry.sealed))
                continue
            envelope, shards = entry.envelope, entry.shards(self._shards)
            if isinstance(entry, OutboxRecord):
                changed.update(shards)
            for shard in shards:
                by_shard.setdefault(shard, [COPIED_TTL_MS]).extend((entry_id, envelope))
        calls: list[Call] = [
            ((events_key(shard), copied_key(shard, project_id)), arguments)
            for shard, arguments in by_shard.items()
        ]
        for start in range(0, len(calls), CALLS):
            self.stats.copies += await self._write_copies(calls[start : start + CALLS])
        if changed and self._notify is not None:
            self._notify(changed)
        for queue, messages in by_queue.items():
            (queued,) = await self._pipeline.run(
                QUEUE, queue_call(project_id, queue, COPIED_TTL_MS, messages)
            )
            if queue is OutboxQueue.STORED:
                self.stats.messages_without_sender += queued
            else:
                self.stats.messages += queued
        self.stats.records += understood

    async def _write_copies(self, calls: Sequence[Call]) -> int:
        """Run COPY. Returns how many copies were new."""
        return sum(await self._pipeline.run(COPY, *calls))

    async def _lengths(self, projects: Sequence[int]) -> list[Any]:
        """The length of each project's outbox, or the error of its command."""
        if not projects:
            return []
        return await self._pipeline.ask_each(*(("XLEN", ProjectSlot(each).outbox) for each in projects))

    async def _send(self, *command: str | int | bytes) -> Any:
        return (await self._pipeline.ask(command))[0]

    def _note_malformed(self, project_id: int, entry_id: bytes) -> None:
        self.stats.malformed += 1
        if self._seldom.may("relay.malformed"):
            _log.error("relay.malformed", project=project_id, entry=entry_id.decode())

    def _note_failure(self, error: Exception, **about: int) -> None:
        self.stats.failures += 1
        if self._seldom.may("relay.failed"):
            _log.warning("relay.failed", error=str(error) or type(error).__name__, **about)


def _all_answered(requests: Sequence[Answered]) -> list[OutboxEntry] | None:
    """The entries that any of the scripts answered, oldest first; None if one of them answered none.

    An entry of one answer that a later answer lacks was copied and deleted in between. COPY ignores it.
    """
    found: dict[bytes, OutboxEntry] = {}
    for entries in requests:
        if entries is None:
            return None
        for entry_id, fields in entries:
            if entry_id not in found:
                found[entry_id] = entry_id, dict(zip(fields[::2], fields[1::2], strict=True))
    return [found[entry_id] for entry_id in sorted(found, key=_position)]


def _position(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)
