"""One channel's queue of sealed letters, from the side of who carries them.

An entry stays in the queue until it was carried, was put off or was given up: each is one step in Redis. An
entry whose carrier died is another's after a while, so a message is carried at least once.

The Lua of the message queues; all keys of one script lie in the slot of `{notify}`.

Times are Redis' own, in ms: the clocks of nodes may differ. An entry of a queue is a sealed letter `m`, how
often it was tried `n`, and when it was given to us `c`. What waits for its next try is in a sorted set,
as `<tries> <since> <sealed>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from homewire.log import Seldom
from homewire.messages.message import Channel
from homewire.messages.outbox import KEPT, Argument, run_script
from homewire.redis.connect import COMMAND_S, translate_redis_errors
from homewire.store.keys import DAY_MS, message_queue, messages_dead, messages_waiting
from homewire.store.script import COPYING, Script

GROUP: Final = "carriers"
CONSUMER: Final = "node"
"""All nodes are one consumer: whose an entry is shows in how long ago somebody took it."""
PROMOTED: Final = 200
"""The most letters that one step puts back into the queue."""
DEAD_KEPT_MS: Final = 7 * DAY_MS
LOG_S: Final = 60.0
"""Between two log lines about entries that are no letters."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter that is this node's to carry."""

    id: str
    sealed: str
    tries: int
    """How often it was tried before."""
    since_ms: int
    """When it was given to us, in ms of Redis' clock."""


class Queue:
    """The letters of one channel. Every method raises Unavailable; what changes something, NotConfirmed."""

    def __init__(self, redis: Redis, channel: Channel) -> None:
        self.malformed = 0
        """Entries that are no letters, whoever wrote them, and were dropped."""
        self._redis = redis
        self._channel = channel
        self._seldom = Seldom(LOG_S)
        self._name = message_queue(channel)
        self._waiting = messages_waiting(channel)
        self._dead = messages_dead(channel)

    async def take(self, count: int, wait_ms: int) -> list[Entry]:
        """At most `count` letters that nobody has; waits for the first at most `wait_ms`."""
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
        return await self._letters(found[0][1]) if found else []

    async def take_over(self, count: int, idle_ms: int) -> list[Entry]:
        """At most `count` letters that somebody took `idle_ms` ago and never finished."""
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
        return await self._letters(found[1])

    async def done(self, entry: Entry) -> None:
        """It was carried."""
        await run_script(self._redis, DONE, [self._name], [GROUP, entry.id])

    async def defer(self, entry: Entry, delay_ms: int) -> None:
        """It is tried again after `delay_ms`, by whichever node."""
        member = f"{entry.tries + 1} {entry.since_ms} {entry.sealed}"
        await run_script(self._redis, DEFER, [self._name, self._waiting], [GROUP, entry.id, member, delay_ms])

    async def bury(self, entry: Entry, problem: str) -> None:
        """It is not tried any more."""
        about: list[Argument] = [GROUP, entry.id, entry.sealed, entry.since_ms, problem]
        await run_script(self._redis, BURY, [self._name, self._dead], [*about, KEPT, DEAD_KEPT_MS])

    async def promote(self) -> None:
        """Put what is due to be tried again back into the queue."""
        await run_script(self._redis, PROMOTE, [self._name, self._waiting], [PROMOTED])

    async def length(self) -> int:
        """How many letters are not carried yet."""
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

    async def _letters(self, found: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
        """What of this are letters. The rest is dropped: it must keep no letter from being carried."""
        letters: list[Entry] = []
        for entry_id, fields in found:
            try:
                letters.append(_entry(entry_id, fields))
            except (KeyError, ValueError):
                await run_script(self._redis, DONE, [self._name], [GROUP, entry_id])
                self.malformed += 1
                if self._seldom.may("malformed"):
                    _log.error("messages.malformed", channel=self._channel.value, entry=entry_id.decode())
        return letters

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
    """Raises KeyError or ValueError for what is no letter."""
    return Entry(entry_id.decode(), fields[b"m"].decode(), int(fields[b"n"]), int(fields[b"c"]))


_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

QUEUE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, the places copied to it last. ARGV: how long these are remembered in ms, the most that is kept
-- or 0: it is carried; how long it is kept; then places and sealed letters.
{_NOW}
{COPYING}
local queued = copy(4, function(sealed) redis.call('XADD', KEYS[1], '*', 'm', sealed, 'n', 0, 'c', now) end)
if ARGV[2] ~= '0' then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])
  redis.call('XTRIM', KEYS[1], 'MINID', now - ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return queued
""")

DONE: Final = Script("""#!lua flags=allow-oom
-- KEYS: queue. ARGV: group, entry.
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
""")

DEFER: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, those that wait. ARGV: group, entry, what waits, for how long. 0: another dealt with it.
{_NOW}
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
return 1
""")

BURY: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, dead. ARGV: group, entry, sealed letter, since, problem, the most there may be, how long kept
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
{_NOW}
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[6], '*', 'm', ARGV[3], 'c', ARGV[4], 'p', ARGV[5])
redis.call('XTRIM', KEYS[2], 'MINID', now - ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return 1
""")

PROMOTE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, those that wait. ARGV: the most. What is due goes back to the end of the queue;
-- what is no letter goes.
{_NOW}
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, each in ipairs(due) do
  local tries, since, sealed = string.match(each, '^(%d+) (%d+) (.+)$')
  if sealed then redis.call('XADD', KEYS[1], '*', 'm', sealed, 'n', tries, 'c', since) end
  redis.call('ZREM', KEYS[2], each)
end
return #due
""")
