"""Commands that are kept for a device until it has them (spec 001, *Send Command*, with `queue`).

There is no moment at which somebody decides whether a device is there. Each such command is kept first, with
a ticket, and sent through the device's shard by the same step. Whoever holds the device's socket delivers
what comes through the shard; whoever takes a new socket reads what is kept behind its reservation, and skips
what then comes through the shard with a ticket that was given out before it read. So none is missed, and a
socket gets each once. It is kept until some socket's kernel took the whole frame.

Scripts of the commands that are kept for devices. See `script.py` for what they answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homewire.concurrency import SingleFlight
from homewire.errors import TooManyRequests
from homewire.store.database import PAGE, Argument, Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, reading, removing

RETRY_AFTER_S: Final = 10
"""Seconds, for a queue that is full: when the device will connect is unknown."""
READ_TOGETHER: Final = 100
"""Maximum number of queues that are read in one round trip: a restart may connect thousands of devices."""


@dataclass(frozen=True, slots=True)
class QueuedCommand:
    """A command to be kept: its envelope in the two parts between which its ticket will stand."""

    device_id: int
    head: bytes
    tail: bytes
    expires_ms: int


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """What one device's queue may have."""

    commands: int
    bytes: int


class QueuedCommands:
    """The queues of devices."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reading = SingleFlight(self._read_many, most=READ_TOGETHER)

    async def keep(
        self,
        project_id: int,
        command: QueuedCommand,
        bounds: QueueBounds,
        once: tuple[str, str, int] | None = None,
    ) -> bool:
        """Keep a command and send it on its way. False: `once` stands for another request; it is the scope
        and fingerprint of this one, and for how long (ms) that is remembered.

        Raises UnknownRecord, TooManyRequests naming the setting that is the bound.
        """
        slot, device_id = ProjectSlot(project_id), command.device_id
        keys = [slot.device(device_id), *_names(slot, device_id)]
        arguments: list[Argument] = [
            device_id, self._database.now_ms(), command.expires_ms, bounds.commands, bounds.bytes,
            command.head, command.tail,
        ]  # fmt: skip
        if once is not None:
            scope, fingerprint, remembered_ms = once
            keys.append(slot.request(scope))
            arguments += [fingerprint, remembered_ms]
        answer = await self._database.change(KEEP, slot, keys, arguments)
        if answer[0] == "reused":
            return False
        if answer == ["full", "commands"]:
            raise TooManyRequests("queued_commands", RETRY_AFTER_S, most=bounds.commands)
        if answer == ["full", "bytes"]:
            raise TooManyRequests("queued_command_bytes", RETRY_AFTER_S, most=bounds.bytes)
        require_ok(answer, project=project_id, device=device_id)
        return True

    async def read(self, project_id: int, device_id: int) -> tuple[int, list[bytes]]:
        """The last ticket that was given out, and the envelopes that are kept, in their order.

        As of a moment after the call.
        """
        return await self._reading.ask(None, (project_id, device_id))

    async def _read_many(self, _: None, devices: Sequence[tuple[int, int]]) -> list[tuple[int, list[bytes]]]:
        now: list[Argument] = [self._database.now_ms()]
        calls = [(_names(ProjectSlot(project_id), device_id), now) for project_id, device_id in devices]
        return [_kept(reply) for reply in await self._database.ask_many(READ, calls)]

    async def remove(self, project_id: int, device_id: int, tickets: Sequence[int]) -> None:
        """These were delivered. Of no effect for those that are not kept any more."""
        slot = ProjectSlot(project_id)
        names = [slot.device_commands(device_id), slot.device_command_ends(device_id)]
        for start in range(0, len(tickets), PAGE // 4):
            await self._database.change(REMOVE, slot, names, tickets[start : start + PAGE // 4])


def _names(slot: ProjectSlot, device_id: int) -> list[str]:
    return [
        slot.device_presence(device_id), slot.device_commands(device_id), slot.device_command_ends(device_id),
    ]  # fmt: skip


def _kept(reply: Sequence[bytes]) -> tuple[int, list[bytes]]:
    last, *rest = reply
    kept = {int(ticket): envelope for ticket, envelope in zip(rest[::2], rest[1::2], strict=True)}
    return int(last), [kept[ticket] for ticket in sorted(kept) if kept[ticket] is not None]


_TIDY: Final = """
-- Take one out; whether it was there.
local function take_out(commands, ends, ticket)
  local bytes = redis.call('HSTRLEN', commands, ticket)
  redis.call('ZREM', ends, ticket)
  if bytes == 0 then return end
  redis.call('HDEL', commands, ticket)
  redis.call('HINCRBY', commands, 'bytes', -bytes)
end
"""

KEEP: Final = changing(
    f"""{_TIDY}
-- KEYS: …, device, presence, commands, their ends, [claim of the request]
-- ARGV: device id, now, when it expires, most commands, most bytes, envelope up to its ticket and from there,
--       [fingerprint of the request, how long that is remembered in ms]
local commands, ends = KEYS[5], KEYS[6]
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'device'}} end
if KEYS[7] then
  local before = redis.call('GET', KEYS[7])
  if before == ARGV[8] then return {{'ok'}} end
  if before then return {{'reused'}} end
end
local charged = commands_charge(commands, ends)
local expired = redis.call('ZRANGEBYSCORE', ends, '-inf', ARGV[2], 'LIMIT', 0, 100)
for _, ticket in ipairs(expired) do take_out(commands, ends, ticket) end
if #expired > 0 and release_early(charged) then
  charged = commands_charge(commands, ends)
  book_until(redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2] or ARGV[2], charged)
end
local bytes = #ARGV[6] + #ARGV[7] + 9
if redis.call('ZCARD', ends) >= tonumber(ARGV[4]) then return {{'full', 'commands'}} end
if tonumber(redis.call('HGET', commands, 'bytes') or 0) + bytes > tonumber(ARGV[5]) then
  return {{'full', 'bytes'}}
end
local over = over_quota('0', bytes + COST.command, 1)
if over then return over end
-- Counted in the record that stays: a device never gets one ticket for two commands.
local ticket = redis.call('HINCRBY', KEYS[4], 'tickets', 1)
local envelope = ARGV[6] .. cmsgpack.pack(ticket) .. ARGV[7]
redis.call('HSET', commands, ticket, envelope)
redis.call('HINCRBY', commands, 'bytes', #envelope)
redis.call('ZADD', ends, ARGV[3], ticket)
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', commands, last)
redis.call('PEXPIREAT', ends, last)
release_early(charged)
book_until(last, commands_charge(commands, ends))
if KEYS[7] then redis.call('SET', KEYS[7], ARGV[8], 'PX', ARGV[9]) end
-- Whoever holds the device's socket delivers it in its place among all others.
publish_event(ARGV[1], envelope)
return unannounced('command_kept')
""",
    sends=True,
    charges=True,
)

READ: Final = reading("""
-- KEYS: presence, commands, their ends. ARGV: now
local kept = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'LIMIT', 0, 500)
local answer = {redis.call('HGET', KEYS[1], 'tickets') or '0'}
for i, ticket in ipairs(kept) do
  answer[2 * i], answer[2 * i + 1] = ticket, redis.call('HGET', KEYS[2], ticket)
end
return answer
""")

REMOVE: Final = removing(
    f"""{_TIDY}
-- KEYS: …, commands, their ends. ARGV: tickets
local last = redis.call('ZRANGE', KEYS[4], -1, -1, 'WITHSCORES')[2]
local was_charged = release_early(commands_charge(KEYS[3], KEYS[4]))
for _, ticket in ipairs(ARGV) do take_out(KEYS[3], KEYS[4], ticket) end
if redis.call('ZCARD', KEYS[4]) == 0 then
  redis.call('UNLINK', KEYS[3], KEYS[4])
elseif was_charged then
  book_until(last, commands_charge(KEYS[3], KEYS[4]))
end
return unannounced('queued_commands_delivered')
""",
    charges=True,
)
