"""Deliveries to smart modules, and which node delivers to which module.

A delivery is in the stream of its module from its dispatch until the receiver accepted it or it became a
dead letter. It survives the loss of nodes and of shards. `bytes` of a module counts its stream: each
envelope and `OVERHEAD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homewire.store.database import PAGE, Database, require_ok
from homewire.store.keys import MODULES_WAITING, ProjectSlot
from homewire.store.script import changing, lua, removing, standalone
from homewire.webhooks.models import DeadLetter, ModuleName, SmartModule

OVERHEAD: Final = 100
"""Bytes that a delivery counts besides its envelope."""

ADD_DELIVERIES: Final = changing(lua(__package__, "add_deliveries", OVERHEAD=OVERHEAD))
CLAIM_MODULE: Final = removing(lua(__package__, "claim_module"))
RELEASE_MODULE: Final = removing(lua(__package__, "release_module"))
FINISH_DELIVERY: Final = removing(lua(__package__, "finish_delivery", OVERHEAD=OVERHEAD))
COUNT_TRY: Final = removing(lua(__package__, "count_try"))
DEAD_LETTER_DELIVERY: Final = removing(lua(__package__, "dead_letter", OVERHEAD=OVERHEAD))
NOTE_BREAKER: Final = removing(lua(__package__, "note_breaker"))
RETRY_DEAD_LETTERS: Final = changing(lua(__package__, "retry_dead_letters", OVERHEAD=OVERHEAD))
DELETE_DEAD_LETTERS: Final = removing(lua(__package__, "delete_dead_letters"))
EXPECT_DELIVERIES: Final = standalone(lua(__package__, "expect_deliveries"))
REMOVE_WAITING: Final = standalone(lua(__package__, "remove_waiting"))

WAITING_TTL_MS: Final = 30_000
"""How long a module without deliveries stays noted after `expect`."""
DEAD_PAGE: Final = 100
"""Dead letters touched by one script."""

MAX_ERROR: Final = 200
"""Characters that are stored of the last error of a webhook."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one smart module."""

    entry: str
    """Its id in the module's stream, which begins with the time in ms of Redis' clock."""
    event_id: str
    envelope: bytes = field(repr=False)

    @property
    def since_ms(self) -> int:
        """When it was dispatched, in ms of Redis' clock."""
        return int(self.entry.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a node that asked to deliver to a module."""

    held: bool
    """Whether this node delivers.

    If not, another node does, the module is suspended, or no delivery waits.
    """
    over: bool = False
    """Whether no delivery waits, or the module was deleted."""
    waiting: int = 0


class DeliveryQueue:
    """The deliveries of all modules."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def expect(self, modules: Sequence[ModuleName]) -> None:
        """Note modules that may soon have deliveries: all nodes check them from now on."""
        names = [_name(each) for each in modules]
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            await self._database.change_outside(EXPECT_DELIVERIES, [MODULES_WAITING], page)

    async def waiting(self, cursor: int) -> tuple[int, list[ModuleName]]:
        """About PAGE noted modules, and the next cursor; 0: the end.

        A full iteration returns each module that stays noted meanwhile.
        """
        cursor, found = await self._database.read("ZSCAN", MODULES_WAITING, cursor, "COUNT", PAGE)
        names = found if isinstance(found, dict) else [each[0] for each in found]
        pairs = (each.decode().split(":", 1) for each in names)
        return int(cursor), [(int(project), module) for project, module in pairs]

    async def forget(self, module: ModuleName) -> None:
        """Remove a module without deliveries, unless `expect` noted it lately."""
        await self._database.change_outside(
            REMOVE_WAITING, [MODULES_WAITING], [_name(module), WAITING_TTL_MS]
        )

    async def add(
        self, module: SmartModule, events: Sequence[tuple[str, bytes]], room_bytes: int, dead_letters: int
    ) -> int | None:
        """Add deliveries of these events (id and envelope, at most 200), up to `room_bytes` of all.

        Returns how many did not fit and became dead letters; None if the module was deleted.
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
        """Claim the delivery to a module for `lease_ms`. Without `idle` only if a delivery waits."""
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
        """Let other nodes deliver to the module."""
        slot = ProjectSlot(module.project_id)
        await self._database.change(RELEASE_MODULE, slot, [slot.module_worker(module.id)], [node])

    async def after(self, module: SmartModule, entry: str, count: int) -> list[Delivery]:
        """At most `count` deliveries after `entry`; "0": from the first one on."""
        name = ProjectSlot(module.project_id).module_deliveries(module.id)
        found = await self._database.read("XRANGE", name, f"({entry}", "+", "COUNT", count)
        return [_delivery(*each) for each in found]

    async def one(self, module: SmartModule, entry: str) -> Delivery | None:
        """A delivery; None if it was removed."""
        name = ProjectSlot(module.project_id).module_deliveries(module.id)
        found = await self._database.read("XRANGE", name, entry, entry)
        return _delivery(*found[0]) if found else None

    async def finish(self, module: SmartModule, entry: str) -> None:
        """Remove a delivery that was accepted or has no receiver any more."""
        slot = ProjectSlot(module.project_id)
        await self._database.change(FINISH_DELIVERY, slot, _names(slot, module.id), [entry])

    async def tried(self, module: SmartModule, entry: str, problem: str) -> int:
        """Count a failed try, and store the error in the module. Returns the number of tries; 0: it was
        removed."""
        slot = ProjectSlot(module.project_id)
        names = [
            slot.module_deliveries(module.id),
            slot.module_tries(module.id),
            slot.smart_module(module.id),
        ]
        values: list[str | int] = [entry, module.since_ms, problem[:MAX_ERROR], self._database.now_ms()]
        answer = await self._database.change(COUNT_TRY, slot, names, values)
        return int(answer[1]) if answer[0] == "ok" else 0

    async def dead_letter(
        self, module: SmartModule, entry: str, reason: str, tries: int, dead_letters: int
    ) -> None:
        """Make a delivery a dead letter. The oldest dead letters beyond `dead_letters` are deleted."""
        slot = ProjectSlot(module.project_id)
        names = [*_names(slot, module.id), slot.module_dead(module.id)]
        await self._database.change(DEAD_LETTER_DELIVERY, slot, names, [entry, reason, tries, dead_letters])

    async def note_breaker(self, module: SmartModule, until_ms: int) -> None:
        """Store until when the circuit breaker is open, in ms; 0: it is closed."""
        slot = ProjectSlot(module.project_id)
        names = [slot.smart_module(module.id)]
        await self._database.change(NOTE_BREAKER, slot, names, [module.since_ms, until_ms])

    async def counts(self, project_id: int, module_id: str) -> tuple[int, int]:
        """The numbers of waiting deliveries and of dead letters."""
        slot = ProjectSlot(project_id)
        waiting = await self._database.read("XLEN", slot.module_deliveries(module_id))
        return int(waiting), int(await self._database.read("XLEN", slot.module_dead(module_id)))

    async def dead_letters(self, project_id: int, module_id: str) -> list[DeadLetter]:
        """All dead letters, oldest first."""
        name, after, dead_letters = ProjectSlot(project_id).module_dead(module_id), "-", list[DeadLetter]()
        while True:
            found = await self._database.read("XRANGE", name, after, "+", "COUNT", DEAD_PAGE)
            dead_letters += [_dead_letter(*each) for each in found]
            if len(found) < DEAD_PAGE:
                return dead_letters
            after = f"({dead_letters[-1].id}"

    async def retry(self, project_id: int, module_id: str, dead_letters: Sequence[str]) -> int:
        """Make dead letters deliveries again. Returns their number. Raises UnknownRecord."""
        await self.expect([(project_id, module_id)])
        slot, moved = ProjectSlot(project_id), 0
        names = [
            slot.smart_module(module_id), slot.module_deliveries(module_id), slot.module_dead(module_id)
        ]  # fmt: skip
        for start in range(0, len(dead_letters), DEAD_PAGE):
            page = dead_letters[start : start + DEAD_PAGE]
            answer = await self._database.change(RETRY_DEAD_LETTERS, slot, names, page)
            require_ok(answer, project=project_id, smart_module=module_id)
            moved += int(answer[1])
        return moved

    async def drop(self, project_id: int, module_id: str, dead_letters: Sequence[str]) -> int:
        """Delete dead letters. Returns their number. Raises UnknownRecord."""
        slot, dropped = ProjectSlot(project_id), 0
        names = [slot.smart_module(module_id), slot.module_dead(module_id)]
        for start in range(0, len(dead_letters), DEAD_PAGE):
            page = dead_letters[start : start + DEAD_PAGE]
            answer = await self._database.change(DELETE_DEAD_LETTERS, slot, names, page)
            require_ok(answer, project=project_id, smart_module=module_id)
            dropped += int(answer[1])
        return dropped


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
    # A foreign entry of the stream has no envelope. It is removed like a delivery of a deleted home.
    return Delivery(entry.decode(), fields.get(b"i", b"").decode(errors="replace"), fields.get(b"e", b""))


def _dead_letter(entry: bytes, flat: Any) -> DeadLetter:
    fields = _fields(flat)
    tries = fields.get(b"t", b"")
    # A foreign entry of the stream is listed, too, so that it can be deleted.
    return DeadLetter(
        entry.decode(),
        fields.get(b"i", b"").decode(errors="replace"),
        fields.get(b"r", b"malformed").decode(errors="replace"),
        int(tries) if tries.isdigit() else 0,
        fields.get(b"e", b""),
    )
