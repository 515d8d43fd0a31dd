"""Notifications of the Rust core, dispatched on the event loop.

They concern connections, queued commands, slow and noisy clients, and gaps. Records that the core skipped are
logged once a minute, so that a malformed record neither stops a node nor fills the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import structlog

from homewire._core import Core
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import WriteBehind
from homewire.errors import CoreFailure
from homewire.events.queued_commands import QueuedCommands
from homewire.presence.connected import ConnectedDevices, DeviceKey
from homewire.realtime.tls_bridge import KernelBounds, TlsBridges
from homewire.sessions.deadlines import ActiveKeys
from homewire.settings import Settings

_log = structlog.get_logger(__name__)

OnMessage = Callable[[int, int, bytes], None]
"""Called with a connection's id, the opcode (1 text, 2 binary) and the payload."""


WAITING_MESSAGES_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class ClientMessages:
    """Takes the messages of clients. No serving node has one: what clients send is checked and dropped.

    The sockets have no protocol for messages yet (docs/decisions/0010-no-client-protocol-yet.md). Until then
    the conformance suite and tests of the core use it.
    """

    take: OnMessage
    waiting_bytes: int = WAITING_MESSAGES_BYTES
    """Messages that wait for Python; beyond it the core reads no socket whose client sends messages."""


OnClosed = Callable[[int], None]
"""Called with the id of a connection that ended in the core."""

OnAdopted = Callable[[int], None]
"""Called with the id of a device's connection when the core has adopted its socket."""

OnWritten = Callable[[int, int], None]
"""Called with a connection's id and the ticket of a queued command that the kernel accepted."""

OnExceeded = Callable[[str, int], None]
"""Called with kind and id of a principal when one of its connections is closed with 1008."""

OnKeys = Callable[[int, Sequence[tuple[int, int, int]]], None]
"""Called with the next cursor and a page of active keys: project id, user id and key tag."""


class CoreEventDispatcher:
    """Dispatches the core's notifications; `failed` is set when one of its threads stopped."""

    def __init__(
        self,
        core: Core,
        client_messages: ClientMessages | None,
        on_closed: OnClosed,
        on_adopted: OnAdopted,
        on_written: OnWritten,
        on_exceeded: OnExceeded,
        on_keys: OnKeys,
    ) -> None:
        self._core = core
        self._on_adopted = on_adopted
        self._on_written = on_written
        self._on_exceeded = on_exceeded
        self._on_keys = on_keys
        self._on_closed = on_closed
        self._client_messages = client_messages
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[CoreFailure] = self._loop.create_future()
        self._loop.add_reader(core.notify_fd, self._take)

    def close(self) -> None:
        """Stop dispatching."""
        self._loop.remove_reader(self._core.notify_fd)

    def _take(self) -> None:
        for notification in self._core.notifications():
            if notification[0] == "message":
                if self._client_messages is not None:
                    self._client_messages.take(notification[1], notification[2], notification[3])
            elif notification[0] == "gap":
                _log.warning("bus.gap", shard=notification[1], cause=notification[2])
            elif notification[0] == "adopted":
                self._on_adopted(notification[1])
            elif notification[0] == "written":
                self._on_written(notification[1], notification[2])
            elif notification[0] == "exceeded":
                self._on_exceeded(notification[1], notification[2])
            elif notification[0] == "keys":
                self._on_keys(notification[1], notification[2])
            elif notification[0] == "closed":
                self._on_closed(notification[1])
            elif notification[0] == "failed" and not self.failed.done():
                self.failed.set_result(CoreFailure(notification[1]))


@dataclass(frozen=True, slots=True)
class CoreEventHandlers:
    """The parts of a node that handle events of connections."""

    tls_bridges: TlsBridges
    connected_devices: ConnectedDevices
    delivered: QueuedCommandRemover
    keys_in_use: ActiveKeys

    @classmethod
    def of(
        cls, settings: Settings, queued_commands: QueuedCommands, clock: Clock = MACHINE_CLOCK
    ) -> CoreEventHandlers:
        """Handlers without connections."""
        connected_devices = ConnectedDevices(clock)
        tls_bridges = TlsBridges(settings.close_s, KernelBounds.of(settings))
        return cls(
            tls_bridges,
            connected_devices,
            QueuedCommandRemover(queued_commands, connected_devices),
            ActiveKeys(),
        )

    def closed(self, connection_id: int) -> None:
        """A connection ended in the core."""
        self.tls_bridges.core_ended(connection_id)
        self.connected_devices.closed(connection_id)
        self.keys_in_use.closed(connection_id)


INTERVAL_S: Final = 60.0
SKIP_COUNTERS: Final = ("foreign_entries", "malformed", "control_records_unknown")
"""Counters of the core (`metrics.COUNTERS`)."""


class Counts(Protocol):
    """The counters of the core."""

    def stats(self) -> dict[str, int]:
        """Counters by name."""
        ...


async def report_skipped(core: Counts, interval_s: float = INTERVAL_S) -> None:
    """Log how many records were skipped since the last time, if any, every `interval_s` seconds."""
    before = dict.fromkeys(SKIP_COUNTERS, 0)
    while True:
        stats = core.stats()
        now = {name: stats[name] for name in SKIP_COUNTERS}
        grown = {name: now[name] - before[name] for name in SKIP_COUNTERS if now[name] > before[name]}
        if grown:
            _log.warning("bus.records_skipped", **grown)
        before = now
        await asyncio.sleep(interval_s)


DeviceTickets: TypeAlias = tuple[DeviceKey, list[int]]
"""A device, and tickets of commands to remove from its queue."""

AT_ONCE: Final = 16
"""Number of devices whose queues are shortened concurrently."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 3.0


async def deliver_first(
    core: Core, commands: QueuedCommands, connection_id: int, project_id: int, device_id: int
) -> None:
    """Give a reserved connection the commands queued for its device. Call it before the adoption.

    Raises Unavailable.
    """
    last, envelopes = await commands.read(project_id, device_id)
    if last:
        core.deliver_first(connection_id, last, envelopes)


class QueuedCommandRemover:
    """Removes queued commands from their queues once the kernel has accepted them.

    What a crash leaves in a queue is delivered once more.
    """

    def __init__(self, commands: QueuedCommands, connected_devices: ConnectedDevices) -> None:
        self._commands = commands
        self._connected = connected_devices
        self._tickets: dict[DeviceKey, list[int]] = {}
        self._delivered = 0
        self.pending = asyncio.Event()
        """Set while a removal waits."""
        self._writer = WriteBehind(
            self, self._remove, batches=AT_ONCE, failed=_warn_of_removals, retry_s=RETRY_S
        )
        self.run = self._writer.run

    def written(self, connection_id: int, ticket: int) -> None:
        """The kernel accepted the whole frame of the queued command with this ticket."""
        device = self._connected.device_of(connection_id)
        self._delivered += 1
        if device is not None:
            self._tickets.setdefault(device, []).append(ticket)
            self.pending.set()

    async def close(self) -> None:
        """Remove the rest, for at most SHUTDOWN_S seconds. Call it when `run` has ended."""
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                await self._writer.drain()
        except TimeoutError:
            _warn_of_removals(self.waiting())

    def take(self, batches: int) -> list[DeviceTickets]:
        """Remove and return the tickets of at most `batches` devices."""
        taken = [(device, self._tickets.pop(device)) for device in list(self._tickets)[:batches]]
        if not self._tickets:
            self.pending.clear()
        return taken

    def put_back(self, batches: Iterable[DeviceTickets]) -> None:
        """Return tickets that could not be removed, before newer ones."""
        for device, tickets in batches:
            self._tickets[device] = tickets + self._tickets.get(device, [])
            self.pending.set()

    def waiting(self) -> int:
        """Number of devices with tickets to remove."""
        return len(self._tickets)

    def metrics(self) -> dict[str, int]:
        """Values of `metrics.GAUGES` and `metrics.COUNTERS`."""
        return {
            "queued_commands_delivered": self._delivered,
            "queued_command_removals_waiting": sum(map(len, self._tickets.values())),
        }

    async def _remove(self, batch: DeviceTickets) -> None:
        (project_id, device_id), tickets = batch
        await self._commands.remove(project_id, device_id, tickets)


def _warn_of_removals(devices: int) -> None:
    _log.warning("commands.not_removed", devices=devices)
