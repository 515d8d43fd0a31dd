"""The command sockets that this node holds, by device, and what is to be said of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias

from homewire.presence.store import MOST_WORDS, Presence, PresenceChange
from homewire.store.database import wall_clock_ms

Device: TypeAlias = tuple[int, int]
"""A device as project id and device id."""
ProjectChanges: TypeAlias = tuple[int, list[PresenceChange]]
"""Words of one kind about devices of one project."""


class ConnectedDevices:
    """Follows the core's word: a device is held from its first command socket to the end of its last.

    A socket whose handshake is under way holds on to a device that is held, but begins nothing: a device that
    opens its next socket before it closes the last one never went.

    What is to be said waits here, for each device in the order in which it happened. A device that comes
    and goes faster than it can be said is remembered by its last word alone, so that no more than two
    wait for each.
    """

    def __init__(self, clock: Callable[[], int] = wall_clock_ms) -> None:
        self.pending = asyncio.Event()
        """Set while a change waits."""
        self._clock = clock
        self._devices: dict[int, Device] = {}
        self._reserved: set[int] = set()
        self._sockets: dict[Device, int] = {}
        """Those that are reserved too."""
        self._held: set[Device] = set()
        self._generation = 0
        self._waiting: dict[int, dict[int, list[PresenceChange]]] = {}

    def reserved(self, connection_id: int, project_id: int, device_id: int) -> None:
        """A handshake for a command socket is under way; its client was not answered yet."""
        device = project_id, device_id
        self._devices[connection_id] = device
        self._reserved.add(connection_id)
        self._sockets[device] = self._sockets.get(device, 0) + 1

    def adopted(self, connection_id: int) -> None:
        """A reserved command socket was taken over."""
        self._reserved.discard(connection_id)
        device = self._devices[connection_id]
        if device not in self._held:
            self._held.add(device)
            self._note(device, holds=True)

    def closed(self, connection_id: int) -> None:
        """A connection ended; of others than command sockets nothing is known here."""
        device = self._devices.pop(connection_id, None)
        if device is None:
            return
        self._reserved.discard(connection_id)
        self._sockets[device] -= 1
        if not self._sockets[device]:
            del self._sockets[device]
            if device in self._held:
                self._held.remove(device)
                self._note(device, holds=False)

    def device_of(self, connection_id: int) -> Device | None:
        """Whose command socket a connection is; None for others, and once it was told closed."""
        return self._devices.get(connection_id)

    def close_all(self) -> None:
        """The node ends: whatever is still open is not held any more."""
        for connection_id in list(self._devices):
            self.closed(connection_id)

    def say_again(self) -> None:
        """Everything that is held is to be said anew: who said it before counts as dead."""
        for device in self._held:
            self._note(device, holds=True)

    def take(self, batches: int) -> list[ProjectChanges]:
        """What is to be said next: of each device only its first word, which is not waiting any more.

        Projects take turns: who had one stands behind the others.
        """
        taken: list[ProjectChanges] = []
        for project_id in list(self._waiting):
            devices = self._waiting[project_id]
            firsts = [words[0] for words in devices.values()]
            for holds in (True, False):
                some = [word for word in firsts if word.holds is holds]
                for start in range(0, len(some), MOST_WORDS):
                    if len(taken) < batches:
                        taken.append((project_id, some[start : start + MOST_WORDS]))
            if len(taken) == batches:
                break
        for project_id, words in taken:
            for word in words:
                self._said(project_id, word.device_id)
            if project_id in self._waiting:
                self._waiting[project_id] = self._waiting.pop(project_id)
        return taken

    def put_back(self, batches: Iterable[ProjectChanges]) -> None:
        """What was taken and could not be said: before all that came since."""
        for project_id, words in batches:
            for word in words:
                waiting = self._waiting.setdefault(project_id, {}).setdefault(word.device_id, [])
                waiting.insert(0, word)
                _shorten(waiting)
        if self._waiting:
            self.pending.set()

    async def is_connected(self, presence: Presence, project_id: int, device_id: int) -> bool:
        """Whether a node holds the device, this one or another: that one by the record, which is read now."""
        # Reserved sockets too: what is sent from the reservation on is delivered.
        if (project_id, device_id) in self._sockets:
            return True
        found = await presence.of(project_id, (device_id,))
        return found[device_id].connected

    def __len__(self) -> int:
        """How many devices are held."""
        return len(self._held)

    def metrics(self) -> dict[str, int]:
        """For the metrics."""
        return {"devices_connected": len(self), "presence_changes_waiting": self.waiting()}

    def waiting(self) -> int:
        """Of how many devices something is still to be said."""
        return sum(map(len, self._waiting.values()))

    def _note(self, device: Device, *, holds: bool) -> None:
        project_id, device_id = device
        self._generation += 1
        waiting = self._waiting.setdefault(project_id, {}).setdefault(device_id, [])
        waiting.append(PresenceChange(device_id, holds, self._generation, self._clock()))
        _shorten(waiting)
        self.pending.set()

    def _said(self, project_id: int, device_id: int) -> None:
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
    """Came, went and came is: came. Two of a kind, one behind the other, are the later one."""
    if len(waiting) > 2 or (len(waiting) == 2 and waiting[0].holds is waiting[1].holds):
        del waiting[:-1]
