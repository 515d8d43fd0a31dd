"""The one door from the repositories to Redis: time-outs, error translation, scripts, ids, pages."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis

from homewire.concurrency import is_cancelling
from homewire.errors import Conflict, QuotaExceeded, Unavailable, UnknownRecord
from homewire.redis.connect import COMMAND_S, translate_redis_errors
from homewire.redis.pipeline import AutoPipeline, Call
from homewire.store.accounting import NO_QUOTAS, QUOTA_SETTINGS, Quotas
from homewire.store.keys import IDS, UNFINISHED, ProjectSlot
from homewire.store.script import LIMIT, NOTE, Script

PAGE: Final = LIMIT
"""The most elements that one command or script touches."""
LOOK_AFTER_MS: Final = 5_000
"""When housekeeping looks for what a change left to be swept: a change takes at most COMMAND_S, so by then it
has happened or never will."""
ATTEMPTS: Final = 10
"""How often a change that others outran is tried again."""

Argument = str | int | bytes
Clock = Callable[[], int]


def wall_clock_ms() -> int:
    """Now, in ms since 1970."""
    return time.time_ns() // 1_000_000


class OutboxRelay(Protocol):
    """What `Database` needs of `homewire.access_changes.relay.Relay`."""

    def is_expected(self, project_id: int) -> bool:
        """Whether the last `expect` still holds."""

    async def expect(self, project_id: int) -> None:
        """Make sure that a relay checks the project's outbox soon. Raises Unavailable."""

    async def announce(self, project_id: int, deadline: float) -> None:
        """Copy the outbox to the shards by `deadline` (loop time). Raises NotConfirmed."""


class Database:
    """Redis as the repositories use it. Raises Unavailable; NotConfirmed where a write may have happened."""

    def __init__(self, redis: Redis, relay: OutboxRelay, clock: Clock, quotas: Quotas = NO_QUOTAS) -> None:
        self._reads = AutoPipeline(redis, only_reads=True)
        # Apart, so that a script which takes its time holds up no read.
        self._changes = AutoPipeline(redis)
        self._relay = relay
        self._quotas = quotas.as_argument()
        self.quota_refusals: Counter[str] = Counter(dict.fromkeys(QUOTA_SETTINGS, 0))
        """How often a quota refused a change, by the name of its setting."""
        self.now_ms = clock

    async def read(self, *command: Argument) -> Any:
        """One reading command; its raw reply, with bytes for strings. With others of this turn it is one
        round trip (`homewire.redis.pipeline`)."""
        with translate_redis_errors():
            return (await self._reads.ask(command))[0]

    async def read_together(self, *commands: Sequence[Argument]) -> list[Any]:
        """The replies to several reading commands of one slot, in one round trip."""
        if not commands:
            return []
        with translate_redis_errors():
            return await self._reads.ask(*commands)

    async def read_hashes(self, names: Sequence[str]) -> list[dict[str, str]]:
        """Several hashes of one slot in one round trip; an empty dict for each that does not exist."""
        if not names:
            return []
        with translate_redis_errors():
            replies = await self._reads.ask(*(("HGETALL", name) for name in names))
        return [decoded(reply) for reply in replies]

    async def read_beside(self, index: str, *command: Argument) -> tuple[Any, frozenset[int]]:
        """A reading command's reply, and the ids that stood in a (mostly empty) index just before it.

        One round trip, unless the index is large. Of the same slot.
        """
        (reply,), members = await self.read_all_beside(index, command)
        return reply, members

    async def read_all_beside(
        self, index: str, *commands: Sequence[Argument]
    ) -> tuple[list[Any], frozenset[int]]:
        """The same for several commands."""
        with translate_redis_errors():
            members, *replies = await self._reads.ask(("ZRANGE", index, 0, PAGE - 1), *commands)
            if len(members) < PAGE:
                return replies, frozenset(map(int, members))
            every = [each async for page in self.index_pages(index) for each in page]
            return await self._reads.ask(*commands), frozenset(every)

    async def read_hash(self, name: str) -> dict[str, str]:
        """A hash, decoded; empty if it does not exist."""
        return (await self.read_hashes([name]))[0]

    async def write(self, *command: Argument) -> Any:
        """One writing command; never repeated."""
        with translate_redis_errors(writing=True):
            return (await self._changes.ask(command))[0]

    async def ask(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """Run a script that only reads."""
        with translate_redis_errors():
            return (await self._reads.run(script, (keys, arguments)))[0]

    async def ask_many(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """A script that only reads, run for many, each on its own slot, in one round trip: keys and arguments
        of each."""
        with translate_redis_errors():
            async with asyncio.timeout(COMMAND_S):
                return await self._reads.run(script, *calls)

    async def change(
        self, script: Script, slot: ProjectSlot, keys: Sequence[str], arguments: Sequence[Argument] = ()
    ) -> list[str]:
        """Run a script that writes in a project; the words of its answer, the first being its outcome.

        The script's keys begin with the project and its outbox, before `keys`. What every node must hear
        of is in the shards when this returns, whatever the outcome: who repeats a change that was not
        confirmed, and finds it made, may rely on that. All of it has as long as one command has.
        Raises QuotaExceeded, with nothing changed, when more is stored than the settings allow.
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
            # Both keep to their time by themselves: another time-out around them costs as much as either.
            answer = await self._run(script, names, arguments)
            if script.uses_outbox:
                await self._relay.announce(slot.project_id, deadline)
        words = [word.decode() for word in answer]
        if words[0] == "behind":
            raise Unavailable
        if words[0] == "quota":
            self.quota_refusals[words[1]] += 1
            raise QuotaExceeded(words[1])
        return words

    async def change_outside(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script that writes to what is no project's; its raw answer."""
        with translate_redis_errors(writing=True):
            return await self._run(script, keys, arguments)

    async def note_unfinished(self, project_id: int, after_ms: int = LOOK_AFTER_MS) -> None:
        """Have housekeeping look soon for what is to be swept in a project."""
        await self.change_outside(NOTE, [UNFINISHED], [project_id, after_ms])

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        return (await self._changes.run(script, (keys, arguments)))[0]

    async def new_id(self) -> int:
        """An integer id, unique in the deployment. One that is never used does no harm."""
        return int(await self.read("INCR", IDS))

    async def index_pages(self, index: str, hidden: str | None = None) -> AsyncIterator[list[int]]:
        """The ids of an index in ascending order, at most PAGE at a time, stable under concurrent change.

        Without those that stand in the (mostly empty) index `hidden`, if there is one.
        """
        after = "-inf"
        while True:
            _stop_if_asked()
            command = ("ZRANGEBYSCORE", index, after, "+inf", "LIMIT", 0, PAGE)
            if hidden is None:
                reply, gone = await self.read(*command), frozenset[int]()
            else:
                reply, gone = await self.read_beside(hidden, *command)
            ids = [int(member) for member in reply]
            if shown := [each for each in ids if each not in gone]:
                yield shown
            if len(ids) < PAGE:
                return
            after = f"({ids[-1]}"

    async def hash_pages(
        self, name: str, beside: str | None = None
    ) -> AsyncIterator[tuple[dict[bytes, bytes], frozenset[int]]]:
        """A hash in pages, in no order, some fields perhaps twice; and with each what `read_beside` tells."""
        cursor = 0
        while True:
            _stop_if_asked()
            command = ("HSCAN", name, cursor, "COUNT", PAGE // 2)
            if beside is None:
                (cursor, fields), ids = await self.read(*command), frozenset[int]()
            else:
                (cursor, fields), ids = await self.read_beside(beside, *command)
            yield fields, ids
            if int(cursor) == 0:
                return

    async def index_slice(self, index: str, skip: int = 0, limit: int | None = None) -> tuple[list[int], int]:
        """The ids of an index in ascending order, without the first `skip`, at most `limit` of them; and
        how many there are.

        In pages, so that no command touches more than PAGE. Only the first is found by its rank, for ranks
        move: what comes and goes meanwhile is there or not, and nothing else is there twice or missing.
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
        """All key names that match, in pages, `count` looked at by one command. What stays is surely seen."""
        cursor = 0
        while True:
            _stop_if_asked()
            reply = await self.read("SCAN", cursor, "MATCH", pattern, "COUNT", count)
            cursor, names = int(reply[0]), reply[1]
            for start in range(0, len(names), PAGE):
                yield names[start : start + PAGE]
            if cursor == 0:
                return

    async def present(self, index: str, ids: Sequence[int]) -> set[int]:
        """Which of `ids` are in an index."""
        found: set[int] = set()
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            scores = await self.read("ZMSCORE", index, *page)
            found.update(each for each, score in zip(page, scores, strict=True) if score is not None)
        return found


def require_ok(answer: Sequence[str], **identifiers: object) -> None:
    """Raise what a script's answer means: UnknownRecord for `unknown`, Conflict for what is taken.

    `identifiers` gives, by noun, the id to name in the error.
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
    """The error of a change that others outran `ATTEMPTS` times."""
    return Conflict("CONFLICT", f"the {noun} is being changed by others; try again")


_CONFLICTS: Final[dict[str, Callable[[], Conflict]]] = {
    "last_owner": lambda: Conflict("LAST_OWNER", "the last owner of a home stays its owner"),
    "left": lambda: Conflict("MEMBER_LEFT", "the user left the home, and is not added again for now"),
    "owners_only": lambda: Conflict("PERMISSION_DENIED", "only an owner of the home may do this"),
    "not_claimable": lambda: Conflict("DEVICE_NOT_CLAIMABLE", "no device can be claimed with this code now"),
    "in_home": lambda: Conflict(
        "DEVICE_ALREADY_IN_HOME", "the device is in a home and has to leave it first"
    ),
    "on_demand": lambda: Conflict("PERMISSION_DENIED", "devices of this project are provisioned on demand"),
    "leased": lambda: Conflict("SESSION_IN_USE", "a request that was made with the session is under way"),
    "invalid_token": lambda: Conflict("INVALID_TOKEN", "the token is unknown, expired or was used"),
}
_EXCEEDED: Final[dict[str, Callable[[], Conflict]]] = {
    "invitations": lambda: Conflict(
        "TOO_MANY_INVITATIONS", "as many homes as may wait for an answer of this address or user"
    ),
    "homes": lambda: Conflict("EXCEEDED_MAX_HOMES", "the user is in as many homes as a user may be"),
    "grants": lambda: Conflict("TOO_MANY_PERMISSIONS", "the user was granted as many as one may be"),
    "group_rights": lambda: Conflict("TOO_MANY_PERMISSIONS", "the group has as many as a group may have"),
    "group_members": lambda: Conflict("TOO_MANY_MEMBERS", "as many users are in the group as may be"),
    "sessions": lambda: Conflict("TOO_MANY_SESSIONS", "the user is logged in as often as a user may be"),
    "groups": lambda: Conflict("TOO_MANY_GROUPS", "the user is in as many groups as a user may be"),
}
_TAKEN: Final[dict[str, Callable[[], Conflict]]] = {
    "entity": lambda: Conflict("ENTITY_EXISTS", "the project has an entity of this id"),
    "app": lambda: Conflict("APP_EXISTS", "the project has an app of this id"),
    "smart_module": lambda: Conflict("MODULE_EXISTS", "the project has a smart module of this id"),
    "module_place": lambda: Conflict("TOO_MANY_MODULES", "the project has as many smart modules as it may"),
    "member": lambda: Conflict("MEMBER_EXISTS", "the user is a member of the home already"),
}


def _stop_if_asked() -> None:
    """Between pages, of which there may be many."""
    if is_cancelling():
        raise asyncio.CancelledError


def decoded(reply: Sequence[bytes]) -> dict[str, str]:
    """What HGETALL answers, as texts."""
    words = [word.decode() for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))
