"""Queued commands: a command waits for its device until it is delivered (spec 001, *Send Command*, `queue`).

Nothing decides whether the device is connected when the command arrives. One script puts the command into the
queue, with a sequence number, and sends it through the shard of the device. A node with a socket of the
device delivers the command from the shard. A node that gets a new socket of the device makes the reservation
first, then reads the queue. Then it skips commands from the shard whose number is not above the last one of
that read. So no command is missed, and a socket gets each once. A command leaves the queue when the kernel
has accepted its whole frame for one socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog

from homewire._core import Core
from homewire.concurrency import SingleFlight, WriteBehind
from homewire.errors import TooManyRequests
from homewire.presence.connected import ConnectedDevices, DeviceKey
from homewire.store.database import PAGE, Argument, Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, lua, reading, removing

QUEUE_COMMAND: Final = changing(lua(__package__, "queue_command"), sends=True, charges=True)
READ_COMMANDS: Final = reading(lua(__package__, "read_commands"))
REMOVE_COMMANDS: Final = removing(lua(__package__, "remove_commands"), charges=True)

RETRY_AFTER_S: Final = 10
"""For a full queue. When the device will connect is unknown."""
MAX_READ: Final = 100
"""Queues that are read in one round trip: after a restart thousands of devices may connect at once."""
CONCURRENCY: Final = 16
"""Number of devices whose commands are removed concurrently."""
REMOVAL_RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 3.0

DeviceSequences: TypeAlias = tuple[DeviceKey, list[int]]
"""A device, and sequence numbers of commands to remove from its queue."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class QueuedCommand:
    """A command for the queue. The script inserts the sequence number between `head` and `tail`."""

    device_id: int
    head: bytes
    tail: bytes
    expires_ms: int


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """Bounds of the queue of one device."""

    commands: int
    bytes: int


class QueuedCommands:
    """The queues of devices."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reading = SingleFlight(self._read_many, max_requests=MAX_READ)

    async def add(
        self,
        project_id: int,
        command: QueuedCommand,
        bounds: QueueBounds,
        once: tuple[str, str, int] | None = None,
    ) -> bool:
        """Put a command into the queue and send it through the shard.

        `once` has the scope key and the fingerprint of an idempotent request, and how long (ms) they are
        stored. Returns False if the scope key was used with another fingerprint.

        Raises UnknownRecord, and TooManyRequests that names the setting of the bound.
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
        """The last sequence number of the device, and the envelopes in its queue, in order.

        They are read after the call.
        """
        return await self._reading.ask(None, (project_id, device_id))

    async def _read_many(self, _: None, devices: Sequence[tuple[int, int]]) -> list[tuple[int, list[bytes]]]:
        now: list[Argument] = [self._database.now_ms()]
        calls = [(_names(ProjectSlot(project_id), device_id), now) for project_id, device_id in devices]
        return [_queue(reply) for reply in await self._database.ask_many(READ_COMMANDS, calls)]

    async def remove(self, project_id: int, device_id: int, sequences: Sequence[int]) -> None:
        """Remove delivered commands. Numbers that are not in the queue have no effect."""
        slot = ProjectSlot(project_id)
        names = [slot.device_commands(device_id), slot.device_command_ends(device_id)]
        for start in range(0, len(sequences), PAGE // 4):
            await self._database.change(REMOVE_COMMANDS, slot, names, sequences[start : start + PAGE // 4])


def _names(slot: ProjectSlot, device_id: int) -> list[str]:
    return [
        slot.device_presence(device_id), slot.device_commands(device_id), slot.device_command_ends(device_id),
    ]  # fmt: skip


def _queue(reply: Sequence[bytes]) -> tuple[int, list[bytes]]:
    last, *rest = reply
    queue = {int(sequence): envelope for sequence, envelope in zip(rest[::2], rest[1::2], strict=True)}
    return int(last), [queue[sequence] for sequence in sorted(queue) if queue[sequence] is not None]


async def deliver_first(
    core: Core, commands: QueuedCommands, connection_id: int, project_id: int, device_id: int
) -> None:
    """Give a reserved connection the queue of its device. To be called before the adoption.

    Raises Unavailable.
    """
    last, envelopes = await commands.read(project_id, device_id)
    if last:
        core.deliver_first(connection_id, last, envelopes)


class QueuedCommandRemover:
    """Removes commands from their queues when the kernel has accepted them.

    After a crash, commands that were not removed are delivered again.
    """

    def __init__(self, commands: QueuedCommands, connected_devices: ConnectedDevices) -> None:
        self._commands = commands
        self._connected = connected_devices
        self._sequences: dict[DeviceKey, list[int]] = {}
        self._delivered = 0
        self.pending = asyncio.Event()
        """Set while a removal waits."""
        self._writer = WriteBehind(
            self, self._remove, batches=CONCURRENCY, failed=_warn_of_removals, retry_s=REMOVAL_RETRY_S
        )
        self.run = self._writer.run

    def written(self, connection_id: int, sequence: int) -> None:
        """The kernel accepted the whole frame of the queued command with this sequence number."""
        device = self._connected.device_of(connection_id)
        self._delivered += 1
        if device is not None:
            self._sequences.setdefault(device, []).append(sequence)
            self.pending.set()

    async def close(self) -> None:
        """Remove the rest, for at most SHUTDOWN_S seconds. To be called when `run` has ended."""
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                await self._writer.drain()
        except TimeoutError:
            _warn_of_removals(self.waiting())

    def take(self, batches: int) -> list[DeviceSequences]:
        """Remove and return the sequence numbers of at most `batches` devices."""
        taken = [(device, self._sequences.pop(device)) for device in list(self._sequences)[:batches]]
        if not self._sequences:
            self.pending.clear()
        return taken

    def put_back(self, batches: Iterable[DeviceSequences]) -> None:
        """Return sequence numbers that could not be removed, before newer ones."""
        for device, sequences in batches:
            self._sequences[device] = sequences + self._sequences.get(device, [])
            self.pending.set()

    def waiting(self) -> int:
        """The number of devices with commands to remove."""
        return len(self._sequences)

    def metrics(self) -> dict[str, int]:
        """Values of `metrics.GAUGES` and `metrics.COUNTERS`."""
        return {
            "queued_commands_delivered": self._delivered,
            "queued_command_removals_waiting": sum(map(len, self._sequences.values())),
        }

    async def _remove(self, batch: DeviceSequences) -> None:
        (project_id, device_id), sequences = batch
        await self._commands.remove(project_id, device_id, sequences)


def _warn_of_removals(devices: int) -> None:
    _log.warning("commands.not_removed", devices=devices)
