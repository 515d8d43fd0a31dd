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
from homewire.store.script import changing, lua, reading, removing

QUEUE_COMMAND: Final = changing(lua(__package__, "queue_command"), sends=True, charges=True)
READ_COMMANDS: Final = reading(lua(__package__, "read_commands"))
REMOVE_COMMANDS: Final = removing(lua(__package__, "remove_commands"), charges=True)

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
        answer = await self._database.change(QUEUE_COMMAND, slot, keys, arguments)
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
        return [_kept(reply) for reply in await self._database.ask_many(READ_COMMANDS, calls)]

    async def remove(self, project_id: int, device_id: int, tickets: Sequence[int]) -> None:
        """These were delivered. Of no effect for those that are not kept any more."""
        slot = ProjectSlot(project_id)
        names = [slot.device_commands(device_id), slot.device_command_ends(device_id)]
        for start in range(0, len(tickets), PAGE // 4):
            await self._database.change(REMOVE_COMMANDS, slot, names, tickets[start : start + PAGE // 4])


def _names(slot: ProjectSlot, device_id: int) -> list[str]:
    return [
        slot.device_presence(device_id), slot.device_commands(device_id), slot.device_command_ends(device_id),
    ]  # fmt: skip


def _kept(reply: Sequence[bytes]) -> tuple[int, list[bytes]]:
    last, *rest = reply
    kept = {int(ticket): envelope for ticket, envelope in zip(rest[::2], rest[1::2], strict=True)}
    return int(last), [kept[ticket] for ticket in sorted(kept) if kept[ticket] is not None]
