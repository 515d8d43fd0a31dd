"""Smart modules of projects (spec 001, *Smart Modules*), and the list of projects with smart modules."""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import orjson

from homewire.bus.shards import events_key
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import InvalidInput
from homewire.store import checks
from homewire.store.database import Database, require_ok
from homewire.store.keys import MODULE_PROJECTS, MODULE_VERSION, ProjectSlot
from homewire.store.script import changing, lua, removing, standalone
from homewire.webhooks.models import ModuleName, ModuleType, SmartModule

CREATE_MODULE: Final = changing(lua(__package__, "create_module"), charges=True)
ROTATE_MODULE_KEY: Final = changing(lua(__package__, "rotate_module_key"))
SUSPEND_MODULE: Final = changing(lua(__package__, "suspend_module"))
DELETE_MODULE: Final = removing(lua(__package__, "delete_module"), charges=True)
BEGIN_READING: Final = standalone(lua(__package__, "begin_reading"))
REMOVE_CONSUMERS: Final = standalone(lua(__package__, "remove_consumers"))
NOTE_CHANGE: Final = standalone(lua(__package__, "note_change"))
REMOVE_PROJECT: Final = standalone(lua(__package__, "remove_project"))

GROUP: Final = "modules"
"""The consumer group, on every shard, of the nodes that dispatch events to smart modules."""
MAX_MODULES: Final = 100
"""Smart modules of one project."""
MAX_HOMES: Final = 500
"""Homes in the list of one smart module."""
MAX_EVENT_TYPES: Final = 100
"""Event types in the list of one smart module."""
EVERYTHING: Final = "*"
"""In place of event types: all."""
GROUPS_AT_ONCE: Final = 16
RELOAD_S: Final = 30.0
"""Interval of reading everything, in case a crash prevented the count of a change."""
FORGET_S: Final = 60.0
"""How long a project without modules stays listed after its last change.

The creation of a module lists its project first, and takes a few seconds at most."""
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
        """Create a smart module. It gets the events that are accepted after this returned.

        `homes` None: all homes of the project. Raises UnknownRecord (project, home), Conflict (MODULE_EXISTS,
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
        # The group is created before the module, so that nodes read the shards from an earlier entry on.
        # The change is noted before and after, so that nodes learn of the module after a crash in between.
        await self._begin_reading(shards)
        await self._note_change(project_id)
        answer = await self._database.change(
            CREATE_MODULE,
            slot,
            [slot.smart_module(_checked(module_id)), slot.smart_modules, *map(slot.home, named or ())],
            [module_id, MAX_MODULES, *(each for field in fields.items() for each in field)],
        )
        require_ok(answer, project=project_id, home=", ".join(map(str, named or ())))
        await self._note_change(project_id)

    async def get(self, project_id: int, module_id: str) -> SmartModule | None:
        """A smart module; None for an unknown id."""
        if not _ID.fullmatch(module_id):
            return None
        record = await self._database.read_hash(ProjectSlot(project_id).smart_module(module_id))
        return _module(project_id, module_id, record) if record else None

    async def list(self, project_id: int) -> builtins.list[SmartModule]:
        """All smart modules of a project, in the order of the bytes of their ids.

        [] for an unknown project.
        """
        slot = ProjectSlot(project_id)
        ids = [each.decode() for each in await self._database.read("ZRANGE", slot.smart_modules, 0, -1)]
        records = await self._database.read_hashes([slot.project, *map(slot.smart_module, ids)])
        if not ids or records[0].get("state", "deleted") == "deleted":
            return []
        pairs = zip(ids, records[1:], strict=True)
        return [_module(project_id, module_id, record) for module_id, record in pairs if record]

    async def of_home(self, project_id: int, home_id: int) -> builtins.list[SmartModule]:
        """The smart modules that get events of a home, in the same order."""
        return [module for module in await self.list(project_id) if module.concerns(home_id)]

    async def suspend(self, project_id: int, module_id: str) -> None:
        """Stop deliveries. Events wait, within the bounds of the stream. Raises UnknownRecord."""
        await self._switch(project_id, module_id, suspended=True)

    async def resume(self, project_id: int, module_id: str) -> None:
        """Undo `suspend`, and close an open circuit breaker. Raises UnknownRecord."""
        await self._switch(project_id, module_id, suspended=False)

    async def rotate_key(self, project_id: int, module_id: str, sealed_key: str, overlap_ms: int) -> None:
        """Replace the key. For `overlap_ms` deliveries are signed with the old key, too.

        Raises UnknownRecord.
        """
        slot = ProjectSlot(project_id)
        until = self._database.now_ms() + overlap_ms if overlap_ms else 0
        answer = await self._database.change(
            ROTATE_MODULE_KEY, slot, [slot.smart_module(_checked(module_id))], [sealed_key, until]
        )
        require_ok(answer, project=project_id, smart_module=module_id)
        await self._note_change(project_id)

    async def delete(self, project_id: int, module_id: str) -> None:
        """Delete a module, its deliveries and its dead letters. Raises UnknownRecord."""
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
        """The number of changes of smart modules in the deployment."""
        return int(await self._database.read("GET", MODULE_VERSION) or 0)

    async def versions(self) -> dict[int, int]:
        """The projects that may have smart modules, each with the version of its last change."""
        found: dict[int, int] = {}
        cursor = 0
        while True:
            cursor, page = await self._database.read("HSCAN", MODULE_PROJECTS, cursor, "COUNT", 500)
            found.update((int(project), int(version)) for project, version in page.items())
            if int(cursor) == 0:
                return found

    async def forget(self, project_id: int, version: int) -> None:
        """Remove a project that had no smart modules at `version`, unless they changed since."""
        await self._database.change_outside(REMOVE_PROJECT, [MODULE_PROJECTS], [project_id, version])

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
        """Create the group on a shard, behind an entry. Without effect if it exists."""
        await self._database.change_outside(BEGIN_READING, [events_key(shard).decode()], [GROUP, behind])

    async def forget_readers(self, shard: int, idle_ms: int) -> None:
        """Remove consumers of a shard that read nothing for `idle_ms` and have no pending entries."""
        names = [events_key(shard).decode()]
        await self._database.change_outside(REMOVE_CONSUMERS, names, [GROUP, idle_ms])


class ModuleRegistry:
    """A node's cache of all smart modules. A version counter tells whether it is current."""

    def __init__(self, modules: SmartModules, clock: Clock = MACHINE_CLOCK) -> None:
        self._clock = clock
        self._modules = modules
        self._version = -1
        self._versions: dict[int, int] = {}
        self._seen_at: dict[int, float] = {}
        self._of_project: dict[int, list[SmartModule]] = {}
        self._by_name: dict[ModuleName, SmartModule] = {}
        self._reload_at = float("-inf")
        self._lock = asyncio.Lock()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_name)

    async def has_modules(self) -> None:
        """Wait until `refresh` has found a module."""
        await self._filled.wait()

    def get(self, name: ModuleName) -> SmartModule | None:
        """A module by project and id."""
        return self._by_name.get(name)

    def wanting(self, project: int, home: int, event_type: str, accepted_ms: int) -> Iterator[SmartModule]:
        """The modules that want an event, by the time (of Redis' clock) when it was accepted."""
        for module in self._of_project.get(project, ()):
            if event_type not in module.events and EVERYTHING not in module.events:
                continue
            if module.concerns(home) and accepted_ms >= module.since_ms:
                yield module

    async def refresh(self) -> None:
        """Read all changes up to the call. Raises Unavailable."""
        async with self._lock:
            now = self._clock.monotonic()
            version = await self._modules.version()
            if version == self._version and now < self._reload_at:
                return
            versions = await self._modules.versions()
            everything = now >= self._reload_at
            for project in self._of_project.keys() - versions.keys():
                self._put(project, ())
            for project, changed in versions.items():
                if everything or self._versions.get(project) != changed:
                    self._put(project, await self._modules.list(project))
                if self._versions.get(project) != changed:
                    self._seen_at[project] = now
            self._versions, self._version = versions, version
            if self._by_name:
                self._filled.set()
            else:
                self._filled.clear()
            if everything:
                await self._forget_empty(now)
                self._reload_at = now + RELOAD_S

    def _put(self, project: int, modules: Iterable[SmartModule]) -> None:
        for gone in self._of_project.pop(project, ()):
            del self._by_name[gone.name]
        kept = list(modules)
        if kept:
            self._of_project[project] = kept
            self._by_name.update((module.name, module) for module in kept)

    async def _forget_empty(self, now: float) -> None:
        for project, version in list(self._versions.items()):
            if project not in self._of_project and now - self._seen_at.get(project, now) > FORGET_S:
                await self._modules.forget(project, version)
        self._seen_at = {project: at for project, at in self._seen_at.items() if project in self._versions}


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
    if not 1 <= len(types) <= MAX_EVENT_TYPES:
        raise InvalidInput("event", f"must be 1 to {MAX_EVENT_TYPES} event types, or '{EVERYTHING}' for all")
    return types


def _homes(homes: Iterable[int] | None) -> list[int] | None:
    if homes is None:
        return None
    named = sorted(set(homes))
    if not 1 <= len(named) <= MAX_HOMES:
        raise InvalidInput("home", f"must be 1 to {MAX_HOMES} homes, or none for all homes of the project")
    return named
