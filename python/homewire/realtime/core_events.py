"""Notifications of the Rust core, dispatched on the event loop.

They concern connections, queued commands, slow and noisy clients, and gaps. Records that the core skipped are
logged once a minute, so that a malformed record neither stops a node nor fills the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import structlog

from homewire._core import Core, Notification
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import CoreFailure
from homewire.events.queued_commands import QueuedCommandRemover, QueuedCommands
from homewire.limits.connections import ConnectionLimits
from homewire.presence.connected import ConnectedDevices
from homewire.realtime.tls_bridge import KernelBounds, TlsBridges
from homewire.sessions.deadlines import ActiveKeys
from homewire.settings import Settings

INTERVAL_S: Final = 60.0
SKIP_COUNTERS: Final = ("foreign_entries", "malformed", "control_records_unknown")
"""Counters of the core (`metrics.COUNTERS`)."""
WAITING_MESSAGES_BYTES: Final = 4 << 20

OnMessage: TypeAlias = Callable[[int, int, bytes], None]
"""Called with a connection's id, the opcode (1 text, 2 binary) and the payload."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClientMessages:
    """Takes the messages of clients. No serving node has one: the core checks what clients send and drops it.

    The sockets have no protocol for messages yet (docs/decisions/0010-no-client-protocol-yet.md). Until then
    the conformance suite and tests of the core use it.
    """

    take: OnMessage
    waiting_bytes: int = WAITING_MESSAGES_BYTES
    """Bytes that may wait for Python. Beyond them the core reads no socket that sends messages."""


@dataclass(frozen=True, slots=True)
class CoreEventHandlers:
    """The parts of a node that handle events of connections."""

    tls_bridges: TlsBridges
    connected_devices: ConnectedDevices
    queued_command_remover: QueuedCommandRemover
    active_keys: ActiveKeys

    @classmethod
    def of(
        cls, settings: Settings, queued_commands: QueuedCommands, clock: Clock = MACHINE_CLOCK
    ) -> CoreEventHandlers:
        """Handlers without connections."""
        connected_devices = ConnectedDevices(clock)
        return cls(
            TlsBridges(settings.close_s, KernelBounds.of(settings)),
            connected_devices,
            QueuedCommandRemover(queued_commands, connected_devices),
            ActiveKeys(),
        )

    def closed(self, connection_id: int) -> None:
        """A connection ended in the core."""
        self.tls_bridges.core_ended(connection_id)
        self.connected_devices.closed(connection_id)
        self.active_keys.closed(connection_id)


class CoreEventDispatcher:
    """Dispatches the core's notifications; `failed` is set when one of its threads stopped."""

    def __init__(
        self,
        core: Core,
        handlers: CoreEventHandlers,
        connection_limits: ConnectionLimits,
        client_messages: ClientMessages | None,
    ) -> None:
        self._core = core
        self._handlers = handlers
        self._connection_limits = connection_limits
        self._client_messages = client_messages
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[CoreFailure] = self._loop.create_future()
        self._loop.add_reader(core.notify_fd, self._dispatch)

    def close(self) -> None:
        """Stop dispatching."""
        self._loop.remove_reader(self._core.notify_fd)

    def _dispatch(self) -> None:
        handlers = self._handlers
        for notification in self._core.notifications():
            match notification:
                case Notification.Adopted(connection_id):
                    handlers.connected_devices.adopted(connection_id)
                case Notification.Closed(connection_id):
                    handlers.closed(connection_id)
                case Notification.Written(connection_id, sequence):
                    handlers.queued_command_remover.written(connection_id, sequence)
                case Notification.AllowanceExceeded(kind, principal_id):
                    self._connection_limits.allowance_exceeded(kind, principal_id)
                case Notification.ActiveKeys(cursor, keys):
                    handlers.active_keys.on_page(cursor, keys)
                case Notification.Message(connection_id, opcode, payload):
                    if self._client_messages is not None:
                        self._client_messages.take(connection_id, opcode, payload)
                case Notification.Gap(shard, cause):
                    _log.warning("bus.gap", shard=shard, cause=cause)
                case Notification.Failed(reason):
                    if not self.failed.done():
                        self.failed.set_result(CoreFailure(reason))


class Counts(Protocol):
    """The counters of the core."""

    def stats(self) -> dict[str, int]:
        """Counters by name."""
        ...


async def report_skipped(core: Counts, interval_s: float = INTERVAL_S) -> None:
    """Log every `interval_s` seconds how many records were skipped since the last time, if any."""
    before = dict.fromkeys(SKIP_COUNTERS, 0)
    while True:
        stats = core.stats()
        now = {name: stats[name] for name in SKIP_COUNTERS}
        grown = {name: now[name] - before[name] for name in SKIP_COUNTERS if now[name] > before[name]}
        if grown:
            _log.warning("bus.records_skipped", **grown)
        before = now
        await asyncio.sleep(interval_s)
