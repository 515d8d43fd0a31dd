"""The relay: from the projects' outboxes to the shards.

What every node must hear is written to the project's outbox by the script that makes it so
and so is the message that is sent because of it: its queue (`messages/queue.py`)
is one more place that entries are copied to. The outbox is in the project's slot, the shards are in others,
so copying is a second step, and whoever was to do it may die in between. Hence three steps around every such
change:

1. `expect`: the project is noted as one in whose outbox something may stand.
2. The script: change and outbox entry, or neither.
3. `announce`: every entry, oldest first, is copied to its shards. Once all its copies are confirmed the
   change is answered, and the entry is deleted.

`run`, on every node, does step 3 for what others left. Relays may meet at one outbox. What they must not do
is turn the order round or lose one. So a relay copies in the order of the outbox: what goes to one shard,
of one page, is a script's single step, and the next page waits until this one is deleted. That step also
notes beside the shard what was copied last, so that nothing is copied twice.

Revoking must work on a Redis at its memory limit, hence also everything here (`allow-oom`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError

from homewire.access_changes.records import Announcement, parse
from homewire.bus.shards import PENDING, copied_key, events_key
from homewire.concurrency import SingleFlight, is_cancelling
from homewire.errors import NotConfirmed, Unavailable
from homewire.log import Seldom
from homewire.messages.models import Posting, PostingQueue
from homewire.messages.queue import QUEUE, queue_call
from homewire.redis.connect import COMMAND_S, translate_redis_errors
from homewire.redis.pipeline import AutoPipeline, Call
from homewire.store.keys import DELETED_PROJECTS, PROJECTS, ProjectSlot, ids_among
from homewire.store.script import COPYING, Script

if TYPE_CHECKING:
    from redis.asyncio import Redis

INTERVAL_S: Final = 0.5
"""Between two looks at the pending projects."""
SWEEP_S: Final = 60.0
"""Between two looks at all projects, for what is not noted as pending any more."""
PENDING_KEPT_MS: Final = 30_000
"""An empty project stays noted this long: a change that was expected takes at most a few seconds."""
EXPECTED_FOR_S: Final = 10.0
"""How long one `expect` does for further changes of its project by this process. With the 4 s that a
change may take it stays well below PENDING_KEPT_MS. Without this, a thousand changes at once would be
a thousand more round trips, and they wait for connections."""
EXPECTED_PROJECTS: Final = 10_000
"""Projects of which that is remembered."""
ENTRIES: Final = 100
"""Outbox entries copied at a time."""
CALLS: Final = 1000
"""Shards written in one pipeline."""
PAGE: Final = 500
"""Projects looked at in one round trip; FORGET touches each twice."""
LOG_S: Final = 60.0
"""Between two log lines about the same trouble."""

EXPECT: Final = Script("""#!lua flags=allow-oom
-- KEYS: pending. ARGV: project. By Redis' clock: those of the nodes may differ.
local now = redis.call('TIME')
return redis.call('ZADD', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[1])
""")

FORGET: Final = Script("""#!lua flags=allow-oom
-- KEYS: pending. ARGV: how long they are kept in ms, projects. One expected again meanwhile stays.
local now = redis.call('TIME')
local last = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[1]
for i = 2, #ARGV do
  local since = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if since and tonumber(since) <= last then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
""")

COPY: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: a shard's stream, the places copied to it last. ARGV: how long they are remembered in ms, then places
-- and envelopes.
{COPYING}
return copy(2, function(envelope) redis.call('XADD', KEYS[1], '*', 'e', envelope) end)
""")
COPIED_KEPT_MS: Final = 600_000
"""How long a shard knows what was copied to it: some 300 places, and the pages that relays may have at hand
are two of 100. Who comes later copies again what was copied and not deleted: readers ignore an older
record, not an event."""

Entry = tuple[bytes, dict[bytes, bytes]]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RelayStats:
    """Plain counters of one `Relay`, read by the metrics page."""

    records: int = 0
    """Outbox entries of which every copy was confirmed."""
    copies: int = 0
    late_records: int = 0
    """Of `records`, those that `run` found and not the change that made them."""
    messages: int = 0
    """Messages to people that were put into a queue."""
    messages_without_sender: int = 0
    """Those that were kept, because nothing carries them."""
    malformed: int = 0
    failures: int = 0
    """Rounds of `run`, or outboxes in it, that Redis kept from being relayed."""


class Relay:
    """Copies the outboxes' records to `shards` shards, with the ordinary client `redis`."""

    def __init__(self, redis: Redis, shards: int) -> None:
        self.stats = RelayStats()
        self._trips = AutoPipeline(redis)
        self._shards = shards
        self._draining = SingleFlight(self._drain, COMMAND_S, after=self._delete_copied)
        self._expecting = SingleFlight(self._note_expected, COMMAND_S)
        self._copied: dict[int, list[bytes]] = {}
        """By project: the entries of its outbox whose copies are confirmed."""
        self._expected_until: dict[int, float] = {}
        self._tell: Callable[[Collection[int]], None] | None = None
        self._seldom = Seldom(LOG_S)

    def on_records(self, tell: Callable[[Collection[int]], None]) -> None:
        """Have `tell` called with the shards that records were copied to, before their change is answered."""
        self._tell = tell

    def is_expected(self, project_id: int) -> bool:
        """Whether `expect` was done lately enough for another change."""
        return asyncio.get_running_loop().time() < self._expected_until.get(project_id, float("-inf"))

    async def expect(self, project_id: int) -> None:
        """Before a change that is announced: what a crash leaves will be found. Raises Unavailable."""
        if not self.is_expected(project_id):
            with translate_redis_errors():
                await self._expecting.ask(project_id, None)

    async def announce(self, project_id: int, deadline: float = math.inf) -> None:
        """Copy what is in the project's outbox now; it is deleted in the next trip.

        Raises NotConfirmed when that could not be done to the end, for whatever reason Redis had: the
        record stands, and `run` goes on with it.
        """
        try:
            await self._draining.ask(project_id, None, deadline)
        except (RedisError, OSError) as error:
            # Perhaps another Redis answers by now, that knows nothing of what was expected.
            self._expected_until.pop(project_id, None)
            raise NotConfirmed from error

    async def close(self) -> None:
        """Before the client is closed: delete what was copied, as far as Redis lets."""
        await self._draining.close()

    async def run(self) -> None:
        """Relay what others left, until cancelled. A Redis that is away is waited for."""
        sweep_at = float("-inf")
        while not is_cancelling():
            now = asyncio.get_running_loop().time()
            try:
                await self._relay_pending()
                if now >= sweep_at:
                    await self._relay_everywhere()
                    sweep_at = now + SWEEP_S
            except (RedisError, OSError, Unavailable) as error:
                self._note_failure(error)
            if not is_cancelling():
                await asyncio.sleep(INTERVAL_S)

    async def _relay_pending(self) -> None:
        async for projects in self._pending():
            empty = await self._relay_leftovers(projects)
            if empty:
                await self._trips.run(FORGET, ([PENDING], [PENDING_KEPT_MS, *empty]))

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
        """Relay what stands in these outboxes; the projects whose outbox was empty."""
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
        began = asyncio.get_running_loop().time()
        await self._trips.run(EXPECT, ([PENDING], [project_id]))
        if len(self._expected_until) >= EXPECTED_PROJECTS:
            self._expected_until.clear()
        self._expected_until[project_id] = began + EXPECTED_FOR_S
        return requests

    async def _drain(self, project_id: int, requests: Sequence[None]) -> list[int]:
        """Copy the entries of an outbox to their shards.

        Returns the number of entries for the first request, and 0 for the others. It stops behind a page that
        is not full, so that a busy outbox does not delay the requests that wait: they copy the rest.
        """
        relayed = 0
        while True:
            if is_cancelling():
                raise asyncio.CancelledError
            entries = await self._entries(project_id)
            if entries:
                await self._copy(project_id, entries)
                self._copied[project_id] = [entry_id for entry_id, _ in entries]
            relayed += len(entries)
            # What came behind a page that was not full is of changes that announce it themselves.
            if len(entries) < ENTRIES:
                return [relayed, *[0] * (len(requests) - 1)]

    async def _entries(self, project_id: int) -> list[Entry]:
        """The oldest in an outbox that were not copied; those that were are deleted in the same trip."""
        outbox, copied = ProjectSlot(project_id).outbox, self._copied.pop(project_id, None)
        oldest = ("XRANGE", outbox, "-", "+", "COUNT", ENTRIES)
        entries: list[Entry]
        if copied is None:
            entries = await self._send(*oldest)
        else:
            _, entries = await self._trips.ask(("XDEL", outbox, *copied), oldest)
        return entries

    async def _delete_copied(self, project_id: int) -> None:
        """When nobody asks for another turn. What a failure leaves is deleted by a later one."""
        copied = self._copied.pop(project_id, None)
        if copied is not None:
            try:
                await self._send("XDEL", ProjectSlot(project_id).outbox, *copied)
            except (RedisError, OSError) as error:
                self._note_failure(error, project=project_id)

    async def _copy(self, project_id: int, entries: Sequence[Entry]) -> None:
        """Write the copies of all entries; returns when each of them was confirmed."""
        by_shard: dict[int, list[str | int | bytes]] = {}
        by_queue: dict[PostingQueue, list[str | int | bytes]] = {}
        # Those that get records, and not just events: these change nothing that is remembered.
        changed: set[int] = set()
        understood = 0
        for entry_id, fields in entries:
            announcement = parse(project_id, entry_id, fields)
            if announcement is None:
                self._note_malformed(project_id, entry_id)
                continue
            understood += 1
            if isinstance(announcement, Posting):
                by_queue.setdefault(announcement.queue, []).extend((entry_id, announcement.sealed))
                continue
            envelope, shards = announcement.envelope, announcement.shards(self._shards)
            if isinstance(announcement, Announcement):
                changed.update(shards)
            for shard in shards:
                by_shard.setdefault(shard, [COPIED_KEPT_MS]).extend((entry_id, envelope))
        calls: list[Call] = [
            ((events_key(shard), copied_key(shard, project_id)), arguments)
            for shard, arguments in by_shard.items()
        ]
        for start in range(0, len(calls), CALLS):
            self.stats.copies += await self._write_copies(calls[start : start + CALLS])
        if changed and self._tell is not None:
            self._tell(changed)
        for queue, letters in by_queue.items():
            (queued,) = await self._trips.run(QUEUE, queue_call(project_id, queue, COPIED_KEPT_MS, letters))
            if queue is PostingQueue.KEPT:
                self.stats.messages_without_sender += queued
            else:
                self.stats.messages += queued
        self.stats.records += understood

    async def _write_copies(self, calls: Sequence[Call]) -> int:
        """Carry out these calls of COPY; how many copies were not there yet."""
        return sum(await self._trips.run(COPY, *calls))

    async def _lengths(self, projects: Sequence[int]) -> list[Any]:
        """The length of each project's outbox; an error in place of one that cannot be told."""
        if not projects:
            return []
        return await self._trips.ask_each(*(("XLEN", ProjectSlot(each).outbox) for each in projects))

    async def _send(self, *command: str | int | bytes) -> Any:
        return (await self._trips.ask(command))[0]

    def _note_malformed(self, project_id: int, entry_id: bytes) -> None:
        self.stats.malformed += 1
        if self._seldom.may("relay.malformed"):
            _log.error("relay.malformed", project=project_id, entry=entry_id.decode())

    def _note_failure(self, error: Exception, **about: int) -> None:
        self.stats.failures += 1
        if self._seldom.may("relay.failed"):
            _log.warning("relay.failed", error=str(error) or type(error).__name__, **about)
