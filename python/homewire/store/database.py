"""Access of the repositories to Redis: timeouts, error translation, scripts, ids, pages."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis

from homewire.clock import Clock
from homewire.concurrency import is_cancelling
from homewire.errors import Conflict, QuotaExceeded, Unavailable, UnknownRecord
from homewire.redis.connect import translate_redis_errors
from homewire.redis.pipeline import AutoPipeline, Call
from homewire.redis.server_pipeline import COMMAND_S
from homewire.store.accounting import NO_QUOTAS, QUOTA_SETTINGS, Quotas
from homewire.store.keys import IDS, UNFINISHED, ProjectSlot
from homewire.store.script import LIMIT, NOTE_UNFINISHED, Script

PAGE: Final = LIMIT
"""The most elements that one command or script touches."""
CLEANUP_DELAY_MS: Final = 5_000
"""When housekeeping checks for the rest of a deletion. A change takes at most COMMAND_S, so by then it has
happened or will not happen."""
SLOT_MOVES_S: Final = 0.5
"""Pause before a scan begins again because its slot moved."""
ATTEMPTS: Final = 10
"""How often a change is tried that conflicts with concurrent ones."""

Argument = str | int | bytes


class OutboxRelay(Protocol):
    """What `Database` needs of `homewire.access_changes.relay.Relay`."""

    def is_expected(self, project_id: int) -> bool:
        """Whether the last `expect` still holds."""

    async def expect(self, project_id: int) -> None:
        """Make sure that a relay checks the project's outbox soon. Raises Unavailable."""

    async def announce(self, project_id: int, deadline: float, entries: list[Any] | None) -> None:
        """Copy the outbox to the shards by `deadline` (loop time). Raises NotConfirmed.

        `entries` are all that it had after the change, as Redis answers them; None: it has to be read.
        """


class Database:
    """Redis for the repositories. Raises Unavailable, and NotConfirmed if a write may have happened."""

    def __init__(self, redis: Redis, relay: OutboxRelay, clock: Clock, quotas: Quotas = NO_QUOTAS) -> None:
        self._reads = AutoPipeline(redis, only_reads=True)
        # Separate, so that a slow script delays no read.
        self._changes = AutoPipeline(redis, is_replicated=True)
        self._relay = relay
        self._quotas = quotas.as_argument()
        self.quota_refusals: Counter[str] = Counter(dict.fromkeys(QUOTA_SETTINGS, 0))
        """Refused changes by the name of the quota's setting."""
        self.clock: Final = clock
        self.now_ms: Final = clock.now_ms

    async def read(self, *command: Argument) -> Any:
        """Send a reading command. Returns its raw reply, with strings as bytes.

        Commands of one iteration of the event loop share a round trip (`homewire.redis.pipeline`).
        """
        with translate_redis_errors():
            return (await self._reads.ask(command))[0]

    async def read_together(self, *commands: Sequence[Argument]) -> list[Any]:
        """The replies to reading commands of one slot, in one round trip."""
        if not commands:
            return []
        with translate_redis_errors():
            return await self._reads.ask(*commands)

    async def read_hashes(self, names: Sequence[str]) -> list[dict[str, str]]:
        """Hashes of one slot, in one round trip; an empty dict for a missing one."""
        if not names:
            return []
        with translate_redis_errors():
            replies = await self._reads.ask(*(("HGETALL", name) for name in names))
        return [decoded(reply) for reply in replies]

    async def read_beside(self, index: str, *command: Argument) -> tuple[Any, frozenset[int]]:
        """The reply to a reading command, and the ids of a (usually empty) index just before it.

        One round trip, unless the index is large. Both are in one slot.
        """
        (reply,), members = await self.read_all_beside(index, command)
        return reply, members

    async def read_all_beside(
        self, index: str, *commands: Sequence[Argument]
    ) -> tuple[list[Any], frozenset[int]]:
        """`read_beside` for several commands."""
        with translate_redis_errors():
            members, *replies = await self._reads.ask(("ZRANGE", index, 0, PAGE - 1), *commands)
            if len(members) < PAGE:
                return replies, frozenset(map(int, members))
            every = [each async for page in self.index_pages(index) for each in page]
            return await self._reads.ask(*commands), frozenset(every)

    async def read_hash(self, name: str) -> dict[str, str]:
        """A decoded hash; empty if it does not exist."""
        return (await self.read_hashes([name]))[0]

    async def write(self, *command: Argument) -> Any:
        """Send a writing command. It is never repeated."""
        with translate_redis_errors(writing=True):
            return (await self._changes.ask(command))[0]

    async def ask(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """Run a script that only reads."""
        with translate_redis_errors():
            return (await self._reads.run(script, (keys, arguments)))[0]

    async def ask_many(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run a script that only reads for several slots, in one round trip.

        A call is its keys and arguments.
        """
        with translate_redis_errors():
            async with asyncio.timeout(COMMAND_S):
                return await self._reads.run(script, *calls)

    async def change(
        self, script: Script, slot: ProjectSlot, keys: Sequence[str], arguments: Sequence[Argument] = ()
    ) -> list[str]:
        """Run a script that changes a project. Returns its answer; the first string is the outcome.

        The project and its outbox come before `keys`. The outbox is in the shards when this returns, with any
        outcome: a caller that repeats an unconfirmed change, and finds it made, can rely on that. All
        steps together have the time limit of one command. Raises QuotaExceeded, with nothing changed.
        """
        names = [slot.project, slot.outbox, *keys]
        if script.charges:
            names += slot.usage, slot.expiring
            arguments = [*arguments, self._quotas]
        deadline = asyncio.get_running_loop().time() + COMMAND_S
        is_expected = not script.uses_outbox or self._relay.is_expected(slot.project_id)
        if script.tombstones or not is_expected:
            with translate_redis_errors():
                async with asyncio.timeout_at(deadline):
                    if not is_expected:
                        await self._relay.expect(slot.project_id)
                    if script.tombstones:
                        await self.note_unfinished(slot.project_id)
        with translate_redis_errors(writing=True):
            # Both have time limits of their own: another timeout around them would cost as much as either.
            answer = await self._run(script, names, arguments)
            if script.uses_outbox:
                answer, entries = answer
                if entries != []:
                    await self._relay.announce(slot.project_id, deadline, entries)
        outcome = [part.decode() for part in answer]
        if outcome[0] == "behind":
            raise Unavailable
        if outcome[0] == "quota":
            self.quota_refusals[outcome[1]] += 1
            raise QuotaExceeded(outcome[1])
        return outcome

    async def change_outside(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script that writes to keys of no project. Returns its raw answer."""
        with translate_redis_errors(writing=True):
            return await self._run(script, keys, arguments)

    async def note_unfinished(self, project_id: int, after_ms: int = CLEANUP_DELAY_MS) -> None:
        """Have housekeeping check a project after `after_ms`."""
        await self.change_outside(NOTE_UNFINISHED, [UNFINISHED], [project_id, after_ms])

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        return (await self._changes.run(script, (keys, arguments)))[0]

    async def new_id(self) -> int:
        """A new integer id, unique in the deployment. It need not be used."""
        return int(await self.read("INCR", IDS))

    async def index_pages(self, index: str, hidden: str | None = None) -> AsyncIterator[list[int]]:
        """The ids of an index in ascending order, at most PAGE at a time, stable under concurrent change.

        Without the ids of the (usually empty) index `hidden`.
        """
        after = "-inf"
        while True:
            _stop_if_cancelled()
            command = ("ZRANGEBYSCORE", index, after, "+inf", "LIMIT", 0, PAGE)
            if hidden is None:
                reply, gone = await self.read(*command), frozenset[int]()
            else:
                reply, gone = await self.read_beside(hidden, *command)
            ids = [int(member) for member in reply]
            if present := [each for each in ids if each not in gone]:
                yield present
            if len(ids) < PAGE:
                return
            after = f"({ids[-1]}"

    async def hash_pages(
        self, name: str, beside: str | None = None
    ) -> AsyncIterator[tuple[dict[bytes, bytes], frozenset[int]]]:
        """A hash in unordered pages, with the ids of `read_beside`. A field may be in two pages."""
        cursor = 0
        while True:
            _stop_if_cancelled()
            command = ("HSCAN", name, cursor, "COUNT", PAGE // 2)
            if beside is None:
                (cursor, fields), ids = await self.read(*command), frozenset[int]()
            else:
                (cursor, fields), ids = await self.read_beside(beside, *command)
            yield fields, ids
            if int(cursor) == 0:
                return

    async def index_slice(self, index: str, skip: int = 0, limit: int | None = None) -> tuple[list[int], int]:
        """At most `limit` ids of an index, ascending, without the first `skip`; and how many it has.

        No command touches more than PAGE ids. Only the first page is found by rank: ids that are added or
        removed meanwhile are there or not, and no other id is missing or there twice.
        """
        total = int(await self.read("ZCARD", index))
        count = PAGE if limit is None else min(limit, PAGE)
        if count == 0:
            return [], total
        reply = await self.read("ZRANGE", index, skip, skip + count - 1)
        found = list(map(int, reply))
        while len(reply) == count == PAGE and (limit is None or len(found) < limit):
            count = PAGE if limit is None else min(limit - len(found), PAGE)
            reply = await self.read("ZRANGEBYSCORE", index, f"({found[-1]}", "+inf", "LIMIT", 0, count)
            found.extend(map(int, reply))
        return found, max(total, skip + len(found)) if found else total

    async def scan(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """The matching key names of one slot, in pages, perhaps twice. A command checks `count` names.

        Names that exist all the time are found. Raises Unavailable if the slot does not stay at one server.
        """
        for _ in range(ATTEMPTS):
            began = self._reads.redirects(pattern)
            async for names in self._scan_once(pattern, count):
                yield names
            if began is None:
                return
            # SCAN itself is not redirected. While the slot moves, EXISTS is.
            await self.read("EXISTS", pattern)
            if self._reads.redirects(pattern) == began:
                return
            await asyncio.sleep(SLOT_MOVES_S)
        raise Unavailable(problem="the keys are being moved to another server")

    async def _scan_once(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        cursor = 0
        while True:
            _stop_if_cancelled()
            reply = await self.read("SCAN", cursor, "MATCH", pattern, "COUNT", count)
            cursor, names = int(reply[0]), reply[1]
            for start in range(0, len(names), PAGE):
                yield names[start : start + PAGE]
            if cursor == 0:
                return

    async def present(self, index: str, ids: Sequence[int]) -> set[int]:
        """The ids among `ids` that are in an index."""
        found: set[int] = set()
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            scores = await self.read("ZMSCORE", index, *page)
            found.update(each for each, score in zip(page, scores, strict=True) if score is not None)
        return found


def require_ok(answer: Sequence[str], **identifiers: object) -> None:
    """Raise the error of a script's answer, unless it is `ok`: UnknownRecord, Conflict.

    `identifiers` has the id for the error message, by noun.
    """
    if answer[0] == "unknown":
        raise UnknownRecord(answer[1].replace("_", " "), identifiers.get(answer[1], ""))
    if answer[0] == "exceeded":
        raise _EXCEEDED[answer[1]]()
    if answer[0] in _CONFLICTS:
        raise _CONFLICTS[answer[0]]()
    if answer[0] == "taken":
        raise _TAKEN[answer[1]]()
    if answer[0] != "ok":
        raise RuntimeError(f"a script of the store answered {answer[0]!r}")


def retries_exhausted(noun: str) -> Conflict:
    """The error of a change that conflicted with others `ATTEMPTS` times."""
    return Conflict("CONFLICT", f"the {noun} is being changed by other requests; try again")


_CONFLICTS: Final[dict[str, Callable[[], Conflict]]] = {
    "last_owner": lambda: Conflict("LAST_OWNER", "a home must have an owner"),
    "left": lambda: Conflict("MEMBER_LEFT", "the user left the home and cannot be added again yet"),
    "owners_only": lambda: Conflict("PERMISSION_DENIED", "only owners of the home may do this"),
    "not_claimable": lambda: Conflict("DEVICE_NOT_CLAIMABLE", "no device can be claimed with this code now"),
    "in_home": lambda: Conflict(
        "DEVICE_ALREADY_IN_HOME", "the device is in a home; remove it from that home first"
    ),
    "on_demand": lambda: Conflict("PERMISSION_DENIED", "devices of this project are provisioned on demand"),
    "leased": lambda: Conflict("SESSION_IN_USE", "a request with this session is in progress"),
    "invalid_token": lambda: Conflict("INVALID_TOKEN", "the token is unknown, expired or was used"),
}
_EXCEEDED: Final[dict[str, Callable[[], Conflict]]] = {
    "invitations": lambda: Conflict(
        "TOO_MANY_INVITATIONS", "the user has too many invitations that are not accepted"
    ),
    "homes": lambda: Conflict("EXCEEDED_MAX_HOMES", "the user has reached the limit of homes"),
    "grants": lambda: Conflict("TOO_MANY_PERMISSIONS", "the user has reached the limit of permissions"),
    "group_rights": lambda: Conflict("TOO_MANY_PERMISSIONS", "the group has too many permissions"),
    "group_members": lambda: Conflict("TOO_MANY_MEMBERS", "the group has reached the limit of members"),
    "sessions": lambda: Conflict("TOO_MANY_SESSIONS", "the user has reached the limit of sessions"),
    "groups": lambda: Conflict("TOO_MANY_GROUPS", "the user has reached the limit of groups"),
}
_TAKEN: Final[dict[str, Callable[[], Conflict]]] = {
    "entity": lambda: Conflict("ENTITY_EXISTS", "the project has an entity with this id"),
    "app": lambda: Conflict("APP_EXISTS", "the project has an app with this id"),
    "smart_module": lambda: Conflict("MODULE_EXISTS", "the project has a smart module with this id"),
    "module_place": lambda: Conflict("TOO_MANY_MODULES", "the project has too many smart modules"),
    "member": lambda: Conflict("MEMBER_EXISTS", "the user is already a member of the home"),
}


def _stop_if_cancelled() -> None:
    """Called between pages: there may be many."""
    if is_cancelling():
        raise asyncio.CancelledError


def decoded(reply: Sequence[bytes]) -> dict[str, str]:
    """The reply of HGETALL as a dict of strings."""
    parts = [part.decode() for part in reply]
    return dict(zip(parts[::2], parts[1::2], strict=True))
