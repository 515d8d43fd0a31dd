"""The devices with command sockets on this node, and the presence changes to be published."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeAlias

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.presence.store import MAX_CHANGES, Presence, PresenceChange

DeviceKey: TypeAlias = tuple[int, int]
"""Project id and device id."""
ProjectChanges: TypeAlias = tuple[int, list[PresenceChange]]
"""Project id, and changes of its devices: all connected or all disconnected."""


class ConnectedDevices:
    """A device is connected from the adoption of its first command socket until its last socket closes.

    A socket whose handshake is not finished keeps a connected device connected, and does not connect another
    one: a device that opens a new socket before it closes the old one stays connected.

    Changes wait here until they are published, for each device in their order. Of a device that connects and
    disconnects faster than that only the last changes are stored, at most two.
    """

    def __init__(self, clock: Clock = MACHINE_CLOCK) -> None:
        self.pending = asyncio.Event()
        """Set while changes wait."""
        self._now_ms = clock.now_ms
        self._devices: dict[int, DeviceKey] = {}
        self._reserved: set[int] = set()
        self._sockets: dict[DeviceKey, int] = {}
        """Command sockets of each device, with reserved ones."""
        self._connected: set[DeviceKey] = set()
        self._generation = 0
        self._waiting: dict[int, dict[int, list[PresenceChange]]] = {}

    def reserved(self, connection_id: int, project_id: int, device_id: int) -> None:
        """The core reserved a command socket; its handshake is not answered yet."""
        device = project_id, device_id
        self._devices[connection_id] = device
        self._reserved.add(connection_id)
        self._sockets[device] = self._sockets.get(device, 0) + 1

    def adopted(self, connection_id: int) -> None:
        """The core adopted a reserved command socket."""
        self._reserved.discard(connection_id)
        device = self._devices[connection_id]
        if device not in self._connected:
            self._connected.add(device)
            self._note(device, connected=True)

    def closed(self, connection_id: int) -> None:
        """A connection closed. Connections other than command sockets are ignored."""
        device = self._devices.pop(connection_id, None)
        if device is None:
            return
        self._reserved.discard(connection_id)
        self._sockets[device] -= 1
        if not self._sockets[device]:
            del self._sockets[device]
            if device in self._connected:
                self._connected.remove(device)
                self._note(device, connected=False)

    def device_of(self, connection_id: int) -> DeviceKey | None:
        """The device of a command socket; None for other connections and closed ones."""
        return self._devices.get(connection_id)

    def close_all(self) -> None:
        """Disconnect all devices: the node stops."""
        for connection_id in list(self._devices):
            self.closed(connection_id)

    def publish_again(self) -> None:
        """Publish all connected devices again, under another boot id."""
        for device in self._connected:
            self._note(device, connected=True)

    def take(self, batches: int) -> list[ProjectChanges]:
        """Take the next changes to be published: of each device the first one, in at most `batches` batches.

        Projects take turns.
        """
        taken: list[ProjectChanges] = []
        for project_id in list(self._waiting):
            devices = self._waiting[project_id]
            firsts = [changes[0] for changes in devices.values()]
            for connected in (True, False):
                some = [change for change in firsts if change.connected is connected]
                for start in range(0, len(some), MAX_CHANGES):
                    if len(taken) < batches:
                        taken.append((project_id, some[start : start + MAX_CHANGES]))
            if len(taken) == batches:
                break
        for project_id, changes in taken:
            for change in changes:
                self._remove_first(project_id, change.device_id)
            if project_id in self._waiting:
                self._waiting[project_id] = self._waiting.pop(project_id)
        return taken

    def put_back(self, batches: Iterable[ProjectChanges]) -> None:
        """Return changes that could not be published. They come before later ones."""
        for project_id, changes in batches:
            for change in changes:
                waiting = self._waiting.setdefault(project_id, {}).setdefault(change.device_id, [])
                waiting.insert(0, change)
                _shorten(waiting)
        if self._waiting:
            self.pending.set()

    async def is_connected(self, presence: Presence, project_id: int, device_id: int) -> bool:
        """Whether the device is connected to this node, or by its record, which is read now, to another
        one."""
        # Reserved sockets count: an event that is sent after the reservation is delivered.
        if (project_id, device_id) in self._sockets:
            return True
        found = await presence.of(project_id, (device_id,))
        return found[device_id].connected

    def __len__(self) -> int:
        """How many devices are connected to this node."""
        return len(self._connected)

    def metrics(self) -> dict[str, int]:
        """For the metrics."""
        return {"devices_connected": len(self), "presence_changes_waiting": self.waiting()}

    def waiting(self) -> int:
        """How many devices have changes that wait."""
        return sum(map(len, self._waiting.values()))

    def _note(self, device: DeviceKey, *, connected: bool) -> None:
        project_id, device_id = device
        self._generation += 1
        waiting = self._waiting.setdefault(project_id, {}).setdefault(device_id, [])
        waiting.append(PresenceChange(device_id, connected, self._generation, self._now_ms()))
        _shorten(waiting)
        self.pending.set()

    def _remove_first(self, project_id: int, device_id: int) -> None:
        devices = self._waiting[project_id]
        devices[device_id].pop(0)
        if devices[device_id]:
            return
        del devices[device_id]
        if not devices:
            del self._waiting[project_id]
            if not self._waiting:
                self.pending.clear()


def _shorten(waiting: list[PresenceChange]) -> None:
    """Drop changes that the last one makes redundant: connect, disconnect, connect is one connect."""
    if len(waiting) > 2 or (len(waiting) == 2 and waiting[0].connected is waiting[1].connected):
        del waiting[:-1]
