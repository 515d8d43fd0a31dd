"""Smart modules: what is told of a project's events, and the deployment's list of projects that have any.

Scripts of smart modules. See `script.py` for what they answer.
"""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import Iterable, Mapping
from typing import Final

import orjson

from homewire.bus.shards import events_key
from homewire.errors import InvalidInput
from homewire.store import checks
from homewire.store.database import Database, require_ok
from homewire.store.keys import MODULE_PROJECTS, MODULE_VERSION, ProjectSlot
from homewire.store.script import Script, changing, removing
from homewire.webhooks.models import ModuleType, SmartModule

GROUP: Final = "modules"
"""The consumer group, on every shard, of the nodes that look for what smart modules want."""
MODULES_LIMIT: Final = 100
"""Smart modules of one project."""
HOMES_LIMIT: Final = 500
"""Homes that one smart module may name."""
EVENTS_LIMIT: Final = 100
"""Event types that one may name."""
EVERYTHING: Final = "*"
GROUPS_AT_ONCE: Final = 16
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


class SmartModules:
    """The smart modules of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        project_id: int,
        module_id: str,
        module_type: ModuleType,
        description: str,
        events: Iterable[str],
        homes: Iterable[int] | None,
        sealed_url: str,
        sealed_key: str,
        shards: int,
    ) -> None:
        """A new module: it hears the events that are accepted after this returned.

        `homes` None: all of the project. Raises UnknownRecord (project, home), Conflict (MODULE_EXISTS,
        TOO_MANY_MODULES) and InvalidInput.
        """
        slot = ProjectSlot(project_id)
        named, types = _homes(homes), _types(events)
        fields: dict[str, str | int] = {
            "type": module_type.value,
            "description": checks.text("description", description),
            "events": orjson.dumps(types).decode(),
            "homes": "" if named is None else ",".join(map(str, named)),
            "created": self._database.now_ms(),
            "suspended": 0,
            "url": sealed_url,
            "key": sealed_key,
        }
        # Heard of before it is there, so that whoever reads the shards reads on from before it, and noted
        # before, so that a crash in between leaves none that no node knows.
        await self._begin_reading(shards)
        await self._note_change(project_id)
        answer = await self._database.change(
            CREATE_MODULE,
            slot,
            [slot.smart_module(_checked(module_id)), slot.smart_modules, *map(slot.home, named or ())],
            [module_id, MODULES_LIMIT, *(each for field in fields.items() for each in field)],
        )
        require_ok(answer, project=project_id, home=", ".join(map(str, named or ())))
        await self._note_change(project_id)

    async def get(self, project_id: int, module_id: str) -> SmartModule | None:
        """A module, None if there is none of this id."""
        if not _ID.fullmatch(module_id):
            return None
        record = await self._database.read_hash(ProjectSlot(project_id).smart_module(module_id))
        return _module(project_id, module_id, record) if record else None

    async def list(self, project_id: int) -> builtins.list[SmartModule]:
        """All modules of a project, by the bytes of their ids; none of one that does not exist."""
        slot = ProjectSlot(project_id)
        ids = [each.decode() for each in await self._database.read("ZRANGE", slot.smart_modules, 0, -1)]
        records = await self._database.read_hashes([slot.project, *map(slot.smart_module, ids)])
        if not ids or records[0].get("state", "deleted") == "deleted":
            return []
        pairs = zip(ids, records[1:], strict=True)
        return [_module(project_id, module_id, record) for module_id, record in pairs if record]

    async def of_home(self, project_id: int, home_id: int) -> builtins.list[SmartModule]:
        """The modules that belong to a home, likewise."""
        return [module for module in await self.list(project_id) if module.concerns(home_id)]

    async def suspend(self, project_id: int, module_id: str) -> None:
        """Deliver nothing from now on; what happens is kept, within its bounds. Raises UnknownRecord."""
        await self._switch(project_id, module_id, suspended=True)

    async def resume(self, project_id: int, module_id: str) -> None:
        """Undo `suspend`, and close an open circuit breaker. Raises UnknownRecord."""
        await self._switch(project_id, module_id, suspended=False)

    async def rotate_key(self, project_id: int, module_id: str, sealed_key: str, overlap_ms: int) -> None:
        """Sign with another key, and for `overlap_ms` with the present one, too. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        until = self._database.now_ms() + overlap_ms if overlap_ms else 0
        answer = await self._database.change(
            ROTATE_MODULE_KEY, slot, [slot.smart_module(_checked(module_id))], [sealed_key, until]
        )
        require_ok(answer, project=project_id, smart_module=module_id)
        await self._note_change(project_id)

    async def delete(self, project_id: int, module_id: str) -> None:
        """End a module, with what waits for it and its dead letters. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            DELETE_MODULE,
            slot,
            [
                slot.smart_modules, slot.smart_module(module_id), slot.module_deliveries(module_id),
                slot.module_tries(module_id), slot.module_dead(module_id), slot.module_worker(module_id),
            ],
            [module_id],
        )  # fmt: skip
        require_ok(answer, project=project_id, smart_module=module_id)
        await self._note_change(project_id)

    async def version(self) -> int:
        """Counts the changes of modules in the whole deployment."""
        return int(await self._database.read("GET", MODULE_VERSION) or 0)

    async def versions(self) -> dict[int, int]:
        """The projects that may have modules, each with the version of its last change."""
        found: dict[int, int] = {}
        cursor = 0
        while True:
            cursor, page = await self._database.read("HSCAN", MODULE_PROJECTS, cursor, "COUNT", 500)
            found.update((int(project), int(version)) for project, version in page.items())
            if int(cursor) == 0:
                return found

    async def forget(self, project_id: int, version: int) -> None:
        """Strike out a project that had no modules at its `version`, unless that changed since."""
        await self._database.change_outside(FORGET_PROJECT, [MODULE_PROJECTS], [project_id, version])

    async def _switch(self, project_id: int, module_id: str, *, suspended: bool) -> None:
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            SUSPEND_MODULE, slot, [slot.smart_module(module_id)], [int(suspended)]
        )
        require_ok(answer, project=project_id, smart_module=module_id)
        await self._note_change(project_id)

    async def _note_change(self, project_id: int) -> None:
        await self._database.change_outside(NOTE_CHANGE, [MODULE_VERSION, MODULE_PROJECTS], [project_id])

    async def _begin_reading(self, shards: int) -> None:
        for start in range(0, shards, GROUPS_AT_ONCE):
            some = range(start, min(shards, start + GROUPS_AT_ONCE))
            await asyncio.gather(*(self.begin_reading(shard, "$") for shard in some))

    async def begin_reading(self, shard: int, behind: str) -> None:
        """Have the group hear what stands in this shard behind an entry; of no effect if it does already."""
        await self._database.change_outside(BEGIN_READING, [events_key(shard).decode()], [GROUP, behind])

    async def forget_readers(self, shard: int, idle_ms: int) -> None:
        """Strike out nodes that have read nothing of this shard for so long, and hold nothing of it."""
        names = [events_key(shard).decode()]
        await self._database.change_outside(FORGET_READERS, names, [GROUP, idle_ms])


def _module(project_id: int, module_id: str, record: Mapping[str, str]) -> SmartModule:
    homes = record["homes"]
    return SmartModule(
        id=module_id,
        project_id=project_id,
        module_type=ModuleType(record["type"]),
        description=record["description"],
        events=frozenset(orjson.loads(record["events"])),
        homes=frozenset(map(int, homes.split(","))) if homes else None,
        created_ms=int(record["created"]),
        since_ms=int(record["since"]),
        suspended=record["suspended"] == "1",
        sealed_url=record["url"],
        sealed_key=record["key"],
        broken_until_ms=int(record.get("broken_until", "0")),
        sealed_old_key=record.get("old_key", ""),
        old_key_until_ms=int(record.get("old_key_until", "0")),
        last_error=record.get("last_error", ""),
        last_error_ms=int(record.get("last_error_at", "0")),
    )


def _checked(module_id: str) -> str:
    if not _ID.fullmatch(module_id):
        raise InvalidInput(
            "id", "must be 1 to 64 letters, digits, '_', '.' or '-', the first a letter or digit"
        )
    return module_id


def _types(events: Iterable[str]) -> list[str]:
    types = sorted({checks.name("event", each) for each in events})
    if not 1 <= len(types) <= EVENTS_LIMIT:
        raise InvalidInput("event", f"1 to {EVENTS_LIMIT} event types are needed, or '{EVERYTHING}' for all")
    return types


def _homes(homes: Iterable[int] | None) -> list[int] | None:
    if homes is None:
        return None
    named = sorted(set(homes))
    if not 1 <= len(named) <= HOMES_LIMIT:
        raise InvalidInput("home", f"1 to {HOMES_LIMIT} homes may be named, or none for all of the project")
    return named


CREATE_MODULE: Final = changing(
    """
-- KEYS: …, module, modules, then the homes it is for, if not for all
-- ARGV: id, modules a project may have, name and value of each field
if redis.call('EXISTS', KEYS[3]) == 1 then return {'taken', 'smart_module'} end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[2]) then return {'taken', 'module_place'} end
for i = 5, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {'unknown', 'home'} end
end
local bytes = COST.module
for i = 3, #ARGV do bytes = bytes + #ARGV[i] end
local over = charge('0', bytes, 1)
if over then return over end
local now = redis.call('TIME')
redis.call('HSET', KEYS[3], 'since', now[1] * 1000 + math.floor(now[2] / 1000), 'charged', bytes,
  unpack(ARGV, 3))
redis.call('ZADD', KEYS[4], 0, ARGV[1])
return unannounced('smart_module_created')
""",
    charges=True,
)

ROTATE_MODULE_KEY: Final = changing("""
-- KEYS: …, module. ARGV: the new key, sealed; until when, in ms, the one before signs, too: 0: no more.
local old = redis.call('HGET', KEYS[3], 'key')
if not old then return {'unknown', 'smart_module'} end
redis.call('HSET', KEYS[3], 'key', ARGV[1])
if ARGV[2] == '0' then redis.call('HDEL', KEYS[3], 'old_key', 'old_key_until')
else redis.call('HSET', KEYS[3], 'old_key', old, 'old_key_until', ARGV[2]) end
return unannounced('smart_module_key_rotated')
""")

SUSPEND_MODULE: Final = changing("""
-- KEYS: …, module. ARGV: 1 or 0: to resume it. What it was broken by is forgotten with that.
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'smart_module'} end
redis.call('HSET', KEYS[3], 'suspended', ARGV[1])
redis.call('HDEL', KEYS[3], 'broken_until')
return unannounced('smart_module_suspended')
""")

DELETE_MODULE: Final = removing(
    """
-- KEYS: …, modules, module, and all that is kept of it. ARGV: id. UNLINK frees outside of the script.
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return {'unknown', 'smart_module'} end
release('0', redis.call('HGET', KEYS[4], 'charged') or 0, 1)
redis.call('UNLINK', unpack(KEYS, 4))
return unannounced('smart_module_deleted')
""",
    charges=True,
)

BEGIN_READING: Final = Script("""#!lua
-- KEYS: a shard's stream. ARGV: group, behind which entry. One that hears it already goes on.
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP') then
  return redis.error_reply(made.err)
end
return 1
""")

FORGET_READERS: Final = Script("""#!lua flags=allow-oom
-- KEYS: a shard's stream. ARGV: group, ms. Those who have nothing in their hands and asked for nothing for so
-- long are dead: a node that reads asks every second. Between look and removal nobody can read.
local forgotten = 0
for _, reader in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local known = {}
  for i = 1, #reader, 2 do known[reader[i]] = reader[i + 1] end
  if forgotten < 100 and known.pending == 0 and known.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], known.name)
    forgotten = forgotten + 1
  end
end
return forgotten
""")

NOTE_CHANGE: Final = Script("""#!lua flags=allow-oom
-- KEYS: version, projects. ARGV: project. Its modules changed, or are about to.
local version = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], version)
return version
""")

FORGET_PROJECT: Final = Script("""#!lua flags=allow-oom
-- KEYS: projects. ARGV: project, version: it had no modules then, and nothing changed since.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
""")

EXPECT_DELIVERIES: Final = Script("""#!lua
-- KEYS: waiting. ARGV: `<project>:<module>`, several. By Redis' clock: those of the nodes may differ.
local now = redis.call('TIME')
for i = 1, #ARGV do
  redis.call('ZADD', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[i])
end
return 1
""")

FORGET_WAITING: Final = Script("""#!lua flags=allow-oom
-- KEYS: waiting. ARGV: `<project>:<module>`, how long it is kept in ms. One expected again meanwhile stays.
local now = redis.call('TIME')
local since = redis.call('ZSCORE', KEYS[1], ARGV[1])
if since and tonumber(since) <= now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[2] then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
""")
