"""How much is stored, as the scripts count it (`accounting.lua`).

Scripts of the counters of what is stored (`accounting.py`).

Counting anew what a project stores; `accounting.lua` says what counts.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog

from homewire.concurrency import is_cancelling
from homewire.errors import Unavailable
from homewire.store.accounting import COSTS, Quotas
from homewire.store.database import ATTEMPTS, PAGE, Argument, Database, require_ok, retries_exhausted
from homewire.store.keys import PROJECTS, ProjectSlot
from homewire.store.script import changing, lua, removing

FORGET_EXPIRED: Final = removing(lua(__package__, "forget_expired_charges"), charges=True)
CORRECT_USAGE: Final = changing(lua(__package__, "correct_usage"))

TOTAL_INTERVAL_S: Final = 60.0
"""Interval of adding up what all projects store, for the metrics."""
RELEASED_PER_SCRIPT: Final = 100
"""Expired charges that one script releases."""
PROJECTS_PER_READ: Final = 200
"""Projects that are read in one round trip."""
PROJECT: Final = "project"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredAmount:
    """An amount of stored data."""

    bytes: int = 0
    records: int = 0


class Usage:
    """The counters of what projects store."""

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self.quotas: Final = quotas
        self._sum = StoredAmount()

    async def of(self, project_id: int, owner: str = PROJECT) -> StoredAmount:
        """What is stored by a project, or by a user (`u<id>`) or home (`h<id>`) of it."""
        slot = ProjectSlot(project_id)
        await self.forget_expired(project_id)
        found = await self._database.read("HMGET", slot.usage, f"{owner}:bytes", f"{owner}:records")
        return StoredAmount(*(int(each or 0) for each in found))

    async def forget_expired(self, project_id: int) -> None:
        """Release the charges of expired records. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        while True:
            answer = await self._database.change(FORGET_EXPIRED, slot, [], [RELEASED_PER_SCRIPT])
            require_ok(answer, project=project_id)
            if int(answer[1]) < RELEASED_PER_SCRIPT:
                return

    @property
    def refusals(self) -> Mapping[str, int]:
        """How often a quota refused a change on this node, by the name of its setting."""
        return self._database.quota_refusals

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {"stored_bytes": self._sum.bytes, "stored_records": self._sum.records}

    async def watch(self) -> None:
        """Add up what all projects store, at intervals, until cancelled."""
        while not is_cancelling():
            try:
                self._sum = await self._add_up()
            except Unavailable as error:
                _log.warning("usage.failed", error=str(error))
            await asyncio.sleep(TOTAL_INTERVAL_S)

    async def _add_up(self) -> StoredAmount:
        found = StoredAmount()
        async for page in self._database.index_pages(PROJECTS):
            for start in range(0, len(page), PROJECTS_PER_READ):
                some = page[start : start + PROJECTS_PER_READ]
                # One command each: they lie in other slots. Asked for in one turn, they are one round trip.
                reads = (
                    self._database.read(
                        "HMGET", ProjectSlot(each).usage, f"{PROJECT}:bytes", f"{PROJECT}:records"
                    )
                    for each in some
                )
                for stored, records in await asyncio.gather(*reads):
                    found = StoredAmount(found.bytes + int(stored or 0), found.records + int(records or 0))
        return found


CORRECTED_PER_SCRIPT: Final = 300
"""Counters that one script corrects: each is read and written."""
RECORDS_PER_READ: Final = 200
"""Redis keys that are read in one round trip."""
PROJECT_ONLY: Final = "0"
"""The owner of what counts for the project alone."""

Counters = dict[str, int]
Counted = tuple[str, int, int]
"""Owner, records, bytes."""


class Recount:
    """Corrects the counters of a project by counting its records again."""

    def __init__(self, database: Database, usage: Usage) -> None:
        self._database = database
        self._usage = usage

    async def recount(self, project_id: int) -> StoredAmount:
        """Count what a project stores, and correct its counters. Returns the corrected amount.

        It looks at the names of all keys of the deployment. Raises UnknownRecord, and Conflict if others
        change the project all the time.
        """
        slot = ProjectSlot(project_id)
        for _ in range(ATTEMPTS):
            await self._usage.forget_expired(project_id)
            counters, payers = await self._counters(slot)
            found = await self._count(slot, payers)
            wrong = [
                (name, counters.get(name, 0), found[name])
                for name in sorted({*counters, *found})
                if counters.get(name, 0) != found[name]
            ]
            if await self._correct(slot, wrong):
                return await self._usage.of(project_id)
        raise retries_exhausted("project")

    async def counted(self, project_id: int) -> tuple[Counters, Counters]:
        """The counters of a project by their names: the stored and the right values."""
        slot = ProjectSlot(project_id)
        counters, payers = await self._counters(slot)
        found = await self._count(slot, payers)
        return counters, {name: value for name, value in found.items() if value}

    async def _counters(self, slot: ProjectSlot) -> tuple[Counters, dict[str, str]]:
        counters: Counters = {}
        payers: dict[str, str] = {}
        async for fields, _ in self._database.hash_pages(slot.usage):
            for name, value in fields.items():
                owner, _, what = name.decode().partition(":")
                if what == "payer":
                    payers[owner] = value.decode()
                else:
                    counters[name.decode()] = int(value)
        return counters, payers

    async def _correct(self, slot: ProjectSlot, wrong: Sequence[tuple[str, int, int]]) -> bool:
        for start in range(0, len(wrong), CORRECTED_PER_SCRIPT):
            words = [word for each in wrong[start : start + CORRECTED_PER_SCRIPT] for word in each]
            answer = await self._database.change(CORRECT_USAGE, slot, [slot.usage], words)
            if answer[0] == "moved":
                return False
            require_ok(answer, project=slot.project_id)
        return True

    async def _count(self, slot: ProjectSlot, payers: dict[str, str]) -> Counter[str]:
        found: Counter[str] = Counter()

        def add(owner: str, records: int, size: int) -> None:
            for each in (PROJECT, owner, *((payers[owner],) if owner in payers else ())):
                found[f"{each}:bytes"] += size
                found[f"{each}:records"] += records

        # A name may be given twice.
        names = sorted(
            {
                name.decode()[len(slot.prefix) :]
                async for page in self._database.scan(slot.prefix + "*", PAGE)
                for name in page
            }
        )
        wanted = [
            (rule, match)
            for name in names
            for rule in _COUNT_COMMANDS
            if (match := rule.name.fullmatch(name))
        ]
        for start in range(0, len(wanted), RECORDS_PER_READ):
            for counted in await self._read_keys(slot, wanted[start : start + RECORDS_PER_READ]):
                add(*counted)
        async for fields, _ in self._database.hash_pages(slot.entities):
            for counted in await self._entities(slot, fields):
                add(*counted)
        async for charge in self._charges(slot):
            add(*charge)
        async for page in self._database.index_pages(slot.deleted_homes):
            for home_id in page:
                # Its record is gone, and counts until the rest is.
                add(f"h{home_id}", 1, COSTS["home"])
        return found

    async def _read_keys(
        self, slot: ProjectSlot, wanted: Sequence[tuple[_CountCommand, re.Match[str]]]
    ) -> list[Counted]:
        commands: list[Sequence[Argument]] = [
            (name, slot.prefix + match.expand(key), *arguments)
            for rule, match in wanted
            for name, key, *arguments in rule.commands
        ]
        replies = iter(await self._database.read_together(*commands))
        return [
            rule.counted(match.groups(), [next(replies) for _ in rule.commands]) for rule, match in wanted
        ]

    async def _entities(self, slot: ProjectSlot, fields: dict[bytes, bytes]) -> list[Counted]:
        if not fields:
            return []
        places = await self._database.read("HMGET", slot.entity_places, *fields)
        return [
            (f"h{place.split(b' ', 1)[0].decode()}", 1, COSTS["entity"] + len(record))
            for place, record in zip(places, fields.values(), strict=True)
            if place is not None
        ]

    async def _charges(self, slot: ProjectSlot) -> Any:
        start = 0
        while members := await self._database.read("ZRANGE", slot.expiring, start, start + PAGE - 1):
            for member in members:
                _, owner, size, records = member.decode().split(" ")
                yield owner, int(records), int(size)
            start += len(members)


class _CountCommand(NamedTuple):
    """How one kind of key is counted."""

    name: re.Pattern[str]
    commands: tuple[tuple[str, ...], ...]
    """Each with the key's name as a template for the match, and its other arguments."""
    counted: Callable[[Sequence[str], Sequence[Any]], Counted]
    """From the groups of the match and the replies."""


def _owner(home: bytes | None) -> str:
    return PROJECT_ONLY if home in (None, b"0") else f"h{int(home or 0)}"


def _many(kind: str, name: str, command: str, of_home: bool = False) -> _CountCommand:
    """A key with records of one kind in it."""

    def counted(ids: Sequence[str], replies: Sequence[Any]) -> Counted:
        return f"h{ids[0]}" if of_home else PROJECT_ONLY, int(replies[0]), int(replies[0]) * COSTS[kind]

    return _CountCommand(re.compile(name), ((command, r"\g<0>"),), counted)


def _one(kind: str, name: str, of_home: bool = False) -> _CountCommand:
    """A key that is one record."""
    return _many(kind, name, "EXISTS", of_home)


def _values(owner: str, replies: Sequence[Any]) -> Counted:
    size, records = int(replies[0] or 0), int(replies[1])
    return owner, records, size + records * COSTS["value"]


_COUNT_COMMANDS: Final = (
    _one("user", r"user:\d+"),
    _one("home", r"home:(\d+)", of_home=True),
    _many("member", r"home:(\d+):members", "HLEN", of_home=True),
    _one("group", r"group:\d+"),
    _many("group_member", r"group:\d+:members", "ZCARD"),
    _many("permission", r"group:\d+:rights", "ZCARD"),
    _many("permission", r"user:\d+:grants", "ZCARD"),
    _many("permission", r"user:\d+:rights", "HLEN"),
    _many("app", r"apps", "HLEN"),
    _one("project_key", r"project_key:\d+"),
    _CountCommand(
        re.compile(r"device:(\d+)"),
        (("HGET", r"\g<0>", "home"),),
        lambda _, replies: (_owner(replies[0]), 1, COSTS["device"]),
    ),
    _CountCommand(
        re.compile(r"home:(\d+):values"),
        (("HGET", r"\g<0>", "_bytes"), ("ZCARD", r"home:\1:value_keys")),
        lambda ids, replies: _values(f"h{ids[0]}", replies),
    ),
    _CountCommand(
        re.compile(r"device:(\d+):values"),
        (
            ("HGET", r"\g<0>", "_bytes"), ("ZCARD", r"device:\1:value_keys"),
            ("HGET", r"device:\1", "home"),
        ),
        lambda _, replies: _values(_owner(replies[2]), replies),
    ),
    _CountCommand(
        re.compile(r"module:[^:]+"),
        (("HGET", r"\g<0>", "charged"),),
        lambda _, replies: (PROJECT_ONLY, 1, int(replies[0] or COSTS["module"])),
    ),
)  # fmt: skip
