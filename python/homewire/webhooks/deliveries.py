"""What is to be delivered to smart modules, and who delivers it.

A delivery waits in its module's stream from the moment a shard's reader found it until the receiver took
it or it was given up; nothing that befalls the shards or a node meanwhile loses it.

Scripts of what is to be delivered to smart modules. See `script.py` for what they answer.

`bytes` of a module counts what lies in its stream: each envelope, and `OVERHEAD` for what is around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homewire.store.database import PAGE, Database, require_ok
from homewire.store.keys import MODULES_WAITING, ProjectSlot
from homewire.store.script import changing, removing
from homewire.webhooks.models import DeadLetter, SmartModule
from homewire.webhooks.store import EXPECT_DELIVERIES, FORGET_WAITING

WAITING_KEPT_MS: Final = 30_000
"""A module stays noted as waiting this long after it was expected to get something."""
DEAD_PAGE: Final = 100
"""Dead letters touched by one script."""

ModuleName = tuple[int, str]
"""Project id and module id."""

LAST_ERROR: Final = 200
"""Characters that are kept of why a webhook last took nothing."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one module."""

    entry: str
    """Its id in the module's stream; the ms are when it came there."""
    event_id: str
    envelope: bytes = field(repr=False)

    @property
    def since_ms(self) -> int:
        """Since when it waits, in ms of Redis' clock."""
        return int(self.entry.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Claim:
    """What came of asking to deliver to a module."""

    held: bool
    """Whether this node delivers. If not: another one does, it is suspended, or nothing waits."""
    over: bool = False
    """Whether nothing waits, or there is no such module any more."""
    waiting: int = 0


class ModuleDeliveries:
    """The deliveries of all modules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def expect(self, modules: Sequence[ModuleName]) -> None:
        """Note that something may wait for these: every node looks after them from now on."""
        names = [_name(each) for each in modules]
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            await self._database.change_outside(EXPECT_DELIVERIES, [MODULES_WAITING], page)

    async def waiting(self, cursor: int) -> tuple[int, list[ModuleName]]:
        """Some modules, about PAGE, for which something may wait, and where to go on; 0: at the beginning.

        Who goes round sees each that stays noted, whatever comes and goes meanwhile.
        """
        cursor, found = await self._database.read("ZSCAN", MODULES_WAITING, cursor, "COUNT", PAGE)
        names = found if isinstance(found, dict) else [each[0] for each in found]
        pairs = (each.decode().split(":", 1) for each in names)
        return int(cursor), [(int(project), module) for project, module in pairs]

    async def forget(self, module: ModuleName) -> None:
        """Strike out a module for which nothing waits, unless it was expected again lately."""
        await self._database.change_outside(
            FORGET_WAITING, [MODULES_WAITING], [_name(module), WAITING_KEPT_MS]
        )

    async def add(
        self, module: SmartModule, events: Sequence[tuple[str, bytes]], room_bytes: int, dead_letters: int
    ) -> int | None:
        """Have these events (id and envelope, at most 200) delivered.

        How many found no room and are dead letters; None: there is no such module any more.
        """
        slot = ProjectSlot(module.project_id)
        answer = await self._database.change(
            ADD_DELIVERIES,
            slot,
            [
                slot.smart_module(module.id), slot.module_deliveries(module.id), slot.module_dead(module.id),
            ],
            [module.since_ms, room_bytes, dead_letters, *(each for event in events for each in event)],
        )  # fmt: skip
        return None if answer[0] == "unknown" else int(answer[1])

    async def claim(self, module: SmartModule, node: str, lease_ms: int, *, idle: bool) -> Claim:
        """Deliver to this module, for so long, and alone. Without `idle` only if something waits."""
        slot = ProjectSlot(module.project_id)
        answer = await self._database.change(
            CLAIM_MODULE,
            slot,
            [
                slot.smart_module(module.id),
                slot.module_deliveries(module.id),
                slot.module_worker(module.id),
            ],
            [module.since_ms, node, lease_ms, int(idle)],
        )  # fmt: skip
        if answer[0] == "unknown":
            return Claim(held=False, over=True)
        waiting = int(answer[1])
        over = answer[0] == "idle" and waiting == 0
        return Claim(held=answer[0] == "ok", over=over, waiting=waiting)

    async def release(self, module: SmartModule, node: str) -> None:
        """Let another node deliver to it."""
        slot = ProjectSlot(module.project_id)
        await self._database.change(RELEASE_MODULE, slot, [slot.module_worker(module.id)], [node])

    async def after(self, module: SmartModule, entry: str, count: int) -> list[Delivery]:
        """The next deliveries behind `entry` ("0": from the first one on)."""
        name = ProjectSlot(module.project_id).module_deliveries(module.id)
        found = await self._database.read("XRANGE", name, f"({entry}", "+", "COUNT", count)
        return [_delivery(*each) for each in found]

    async def one(self, module: SmartModule, entry: str) -> Delivery | None:
        """A delivery, None if it is gone."""
        name = ProjectSlot(module.project_id).module_deliveries(module.id)
        found = await self._database.read("XRANGE", name, entry, entry)
        return _delivery(*found[0]) if found else None

    async def finish(self, module: SmartModule, entry: str) -> None:
        """It was taken, or nobody wants it any more."""
        slot = ProjectSlot(module.project_id)
        await self._database.change(FINISH_DELIVERY, slot, _names(slot, module.id), [entry])

    async def tried(self, module: SmartModule, entry: str, problem: str) -> int:
        """Once more it was not taken: how often by now. 0: it is gone. The module keeps the last problem."""
        slot = ProjectSlot(module.project_id)
        names = [
            slot.module_deliveries(module.id),
            slot.module_tries(module.id),
            slot.smart_module(module.id),
        ]
        values: list[str | int] = [entry, module.since_ms, problem[:LAST_ERROR], self._database.now_ms()]
        answer = await self._database.change(COUNT_TRY, slot, names, values)
        return int(answer[1]) if answer[0] == "ok" else 0

    async def bury(self, module: SmartModule, entry: str, reason: str, tries: int, dead_letters: int) -> None:
        """Give it up: it becomes a dead letter, and the oldest of more than `dead_letters` goes."""
        slot = ProjectSlot(module.project_id)
        names = [*_names(slot, module.id), slot.module_dead(module.id)]
        await self._database.change(BURY_DELIVERY, slot, names, [entry, reason, tries, dead_letters])

    async def note_breaker(self, module: SmartModule, until_ms: int) -> None:
        """The circuit breaker is open until then; 0: it closed."""
        slot = ProjectSlot(module.project_id)
        names = [slot.smart_module(module.id)]
        await self._database.change(NOTE_BREAKER, slot, names, [module.since_ms, until_ms])

    async def counts(self, project_id: int, module_id: str) -> tuple[int, int]:
        """How many deliveries wait, and how many dead letters there are."""
        slot = ProjectSlot(project_id)
        waiting = await self._database.read("XLEN", slot.module_deliveries(module_id))
        return int(waiting), int(await self._database.read("XLEN", slot.module_dead(module_id)))

    async def dead_letters(self, project_id: int, module_id: str) -> list[DeadLetter]:
        """All dead letters, oldest first."""
        name, after, letters = ProjectSlot(project_id).module_dead(module_id), "-", list[DeadLetter]()
        while True:
            found = await self._database.read("XRANGE", name, after, "+", "COUNT", DEAD_PAGE)
            letters += [_dead_letter(*each) for each in found]
            if len(found) < DEAD_PAGE:
                return letters
            after = f"({letters[-1].id}"

    async def retry(self, project_id: int, module_id: str, letters: Sequence[str]) -> int:
        """Deliver dead letters anew, as if they had just come; how many that were. Raises UnknownRecord."""
        await self.expect([(project_id, module_id)])
        slot, moved = ProjectSlot(project_id), 0
        names = [
            slot.smart_module(module_id), slot.module_deliveries(module_id), slot.module_dead(module_id)
        ]  # fmt: skip
        for start in range(0, len(letters), DEAD_PAGE):
            page = letters[start : start + DEAD_PAGE]
            answer = await self._database.change(RETRY_DEAD, slot, names, page)
            require_ok(answer, project=project_id, smart_module=module_id)
            moved += int(answer[1])
        return moved

    async def drop(self, project_id: int, module_id: str, letters: Sequence[str]) -> int:
        """Forget dead letters; how many that were. Raises UnknownRecord."""
        slot, dropped = ProjectSlot(project_id), 0
        names = [slot.smart_module(module_id), slot.module_dead(module_id)]
        for start in range(0, len(letters), DEAD_PAGE):
            page = letters[start : start + DEAD_PAGE]
            answer = await self._database.change(DROP_DEAD, slot, names, page)
            require_ok(answer, project=project_id, smart_module=module_id)
            dropped += int(answer[1])
        return dropped


def named(module: SmartModule) -> ModuleName:
    """How a module is named in the deployment."""
    return module.project_id, module.id


def _name(module: ModuleName) -> str:
    return f"{module[0]}:{module[1]}"


def _names(slot: ProjectSlot, module_id: str) -> list[str]:
    return [
        slot.smart_module(module_id), slot.module_deliveries(module_id), slot.module_tries(module_id)
    ]  # fmt: skip


def _fields(flat: Sequence[Any] | dict[bytes, bytes]) -> dict[bytes, bytes]:
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _delivery(entry: bytes, flat: Any) -> Delivery:
    fields = _fields(flat)
    # What somebody else wrote into the stream has no envelope: it goes, like what is of a deleted home.
    return Delivery(entry.decode(), fields.get(b"i", b"").decode(errors="replace"), fields.get(b"e", b""))


def _dead_letter(entry: bytes, flat: Any) -> DeadLetter:
    fields = _fields(flat)
    tries = fields.get(b"t", b"")
    # What somebody else wrote into the stream is shown, too, so that it can be dropped.
    return DeadLetter(
        entry.decode(),
        fields.get(b"i", b"").decode(errors="replace"),
        fields.get(b"r", b"not understood").decode(errors="replace"),
        int(tries) if tries.isdigit() else 0,
        fields.get(b"e", b""),
    )


OVERHEAD: Final = 100
"""Bytes that an entry is counted with besides its envelope."""

_SIZE: Final = f"""
-- The envelope of a delivery is the value of its last field.
local function size_of(fields) return #fields[#fields] + {OVERHEAD} end
"""

_TAKE_OUT: Final = (
    _SIZE
    + """
-- Take a delivery out of its stream; its fields, or nothing if it is gone already.
local function take_out(module, deliveries, tries, entry)
  local found = redis.call('XRANGE', deliveries, entry, entry)
  redis.call('HDEL', tries, entry)
  if not found[1] then return end
  redis.call('XDEL', deliveries, entry)
  redis.call('HINCRBY', module, 'bytes', -size_of(found[1][2]))
  return found[1][2]
end
"""
)

ADD_DELIVERIES: Final = changing(
    _SIZE
    + """
-- KEYS: …, module, deliveries, dead letters
-- ARGV: since, most bytes, most dead letters, then event id and envelope of each
-- Another one of its id, made since, hears nothing of before. What finds no room is dead at once.
if redis.call('HGET', KEYS[3], 'since') ~= ARGV[1] then return {'unknown', 'smart_module'} end
local bytes, room = tonumber(redis.call('HGET', KEYS[3], 'bytes') or '0'), tonumber(ARGV[2])
local refused = 0
for i = 4, #ARGV, 2 do
  local size = size_of({ARGV[i + 1]})
  if bytes + size <= room then
    redis.call('XADD', KEYS[4], '*', 'i', ARGV[i], 'e', ARGV[i + 1])
    bytes = bytes + size
  else
    redis.call('XADD', KEYS[5], 'MAXLEN', ARGV[3], '*', 'r', 'too much waits', 't', 0,
      'i', ARGV[i], 'e', ARGV[i + 1])
    refused = refused + 1
  end
end
redis.call('HSET', KEYS[3], 'bytes', bytes)
return unannounced('deliveries_added', tostring(refused))
"""
)

CLAIM_MODULE: Final = removing("""
-- KEYS: …, module, deliveries, worker. ARGV: since, node, for how many ms, 1: also if nothing waits
-- Who delivers to it: one node at a time, until it lets go or is not heard of for so long.
local module = redis.call('HMGET', KEYS[3], 'since', 'suspended')
if module[1] ~= ARGV[1] then return {'unknown', 'smart_module'} end
local worker = redis.call('GET', KEYS[5])
if worker and worker ~= ARGV[2] then return {'held', '0'} end
local waiting = redis.call('XLEN', KEYS[4])
if state ~= 'live' or module[2] == '1' or (waiting == 0 and ARGV[4] ~= '1') then
  redis.call('DEL', KEYS[5])
  return {'idle', tostring(waiting)}
end
redis.call('SET', KEYS[5], ARGV[2], 'PX', ARGV[3])
return unannounced('module_claimed', tostring(waiting))
""")

RELEASE_MODULE: Final = removing("""
-- KEYS: …, worker. ARGV: node
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
return unannounced('module_released')
""")

FINISH_DELIVERY: Final = removing(
    _TAKE_OUT
    + """
-- KEYS: …, module, deliveries, tries. ARGV: entry
take_out(KEYS[3], KEYS[4], KEYS[5], ARGV[1])
return unannounced('delivered')
"""
)

COUNT_TRY: Final = removing("""
-- KEYS: …, deliveries, tries, module. ARGV: entry, since, why it was not taken, now
if #redis.call('XRANGE', KEYS[3], ARGV[1], ARGV[1]) == 0 then return {'gone'} end
if redis.call('HGET', KEYS[5], 'since') == ARGV[2] then
  redis.call('HSET', KEYS[5], 'last_error', ARGV[3], 'last_error_at', ARGV[4])
end
return unannounced('try_counted', tostring(redis.call('HINCRBY', KEYS[4], ARGV[1], 1)))
""")

BURY_DELIVERY: Final = removing(
    _TAKE_OUT
    + """
-- KEYS: …, module, deliveries, tries, dead letters. ARGV: entry, why, tries, most dead letters
local fields = take_out(KEYS[3], KEYS[4], KEYS[5], ARGV[1])
if not fields then return {'gone'} end
redis.call('XADD', KEYS[6], 'MAXLEN', ARGV[4], '*', 'r', ARGV[2], 't', ARGV[3], unpack(fields))
return unannounced('delivery_given_up')
"""
)

NOTE_BREAKER: Final = removing("""
-- KEYS: …, module. ARGV: since, open until in ms, or 0
if redis.call('HGET', KEYS[3], 'since') ~= ARGV[1] then return {'gone'} end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[3], 'broken_until')
else
  redis.call('HSET', KEYS[3], 'broken_until', ARGV[2])
end
return unannounced('breaker_noted')
""")

RETRY_DEAD: Final = changing(
    _SIZE
    + """
-- KEYS: …, module, deliveries, dead letters. ARGV: dead letters; each becomes a new delivery.
-- What is none, and stands there all the same, stays: why, tries, event id and envelope are eight words.
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'smart_module'} end
local moved = 0
for i = 1, #ARGV do
  local found = redis.call('XRANGE', KEYS[5], ARGV[i], ARGV[i])
  if found[1] and #found[1][2] == 8 then
    local fields = found[1][2]
    redis.call('XADD', KEYS[4], '*', unpack(fields, 5))
    redis.call('XDEL', KEYS[5], ARGV[i])
    redis.call('HINCRBY', KEYS[3], 'bytes', size_of(fields))
    moved = moved + 1
  end
end
return unannounced('dead_letters_retried', tostring(moved))
"""
)

DROP_DEAD: Final = removing("""
-- KEYS: …, module, dead letters. ARGV: dead letters
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'smart_module'} end
return unannounced('dead_letters_dropped', tostring(redis.call('XDEL', KEYS[4], unpack(ARGV))))
""")
