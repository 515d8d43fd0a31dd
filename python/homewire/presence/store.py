"""Presence of devices: a record in the slot of the project, and the leases of the nodes that it names.

A device is connected while at least one live node has a command WebSocket of it. A record
(`ProjectSlot.device_presence`) has a field `@<boot id>` for each such node, and in `holders` their number.
The script that adds the first node publishes `_deviceConnected_`; the one that removes the last node
publishes `_deviceDisconnected_`. So each event is published once, however many nodes clean up after a dead
one.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from homewire._core import event_envelope, parse_event
from homewire.devices.models import DevicePresence
from homewire.errors import Unavailable
from homewire.presence.nodes import Nodes
from homewire.store.database import ATTEMPTS, Argument, Database
from homewire.store.keys import ProjectSlot
from homewire.store.script import Script, changing, lua, removing

MAX_NODES: Final = 8
"""Nodes whose last change of a device is known. A change is late by seconds at most; no device changes nodes
so often in that time."""

CONNECT_DEVICES: Final = changing(lua(__package__, "connect_devices", MAX_NODES=MAX_NODES), sends=True)
DISCONNECT_DEVICES: Final = removing(lua(__package__, "disconnect_devices", MAX_NODES=MAX_NODES), sends=True)

NODE_PREFIX: Final = "@"
"""A record has a field of this prefix and a boot id while that node has a socket of the device."""
CHUNK: Final = 200
"""Records read in one round trip, so that other requests do not wait for a longer one."""
MAX_CHANGES: Final = 100
"""Devices in one script, which touches at most ten elements for each."""
DEAD: Final = 0
"""The generation of a change that another node writes for a dead one."""
# The specification defines no data of these events.
_CONNECTED: Final = parse_event(b'{"eventType":"_deviceConnected_"}')
_DISCONNECTED: Final = parse_event(b'{"eventType":"_deviceDisconnected_"}')


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """A device got its first command socket on a node (`connected`), or lost the last one."""

    device_id: int
    connected: bool
    generation: int
    """A number that each node counts up from 1. The change with the highest one is valid."""
    time_ms: int


class Presence:
    """The presence of devices."""

    def __init__(self, database: Database, nodes: Nodes) -> None:
        self._database = database
        self._nodes = nodes

    async def of(self, project_id: int, device_ids: Sequence[int]) -> dict[int, DevicePresence]:
        """The presence of each device; without times for one that never connected or is unknown.

        Only nodes with a live lease count: a killed node stops counting with its lease, before other nodes
        clean up after it.
        """
        slot, found = ProjectSlot(project_id), dict[int, DevicePresence]()
        for start in range(0, len(device_ids), CHUNK):
            page = device_ids[start : start + CHUNK]
            records = await self._database.read_hashes([slot.device_presence(each) for each in page])
            living = await self._nodes.living(_nodes_of(*records))
            found.update(
                (each, _presence(record, living)) for each, record in zip(page, records, strict=True)
            )
        return found

    async def by_record(self, record: dict[str, str]) -> DevicePresence:
        """The presence of a device whose record was read already (`Devices.with_presence`)."""
        return _presence(record, await self._nodes.living(_nodes_of(record)))

    async def publish(self, project_id: int, boot_id: str, changes: Sequence[PresenceChange]) -> None:
        """Write changes of a node to the records of devices of a project, and publish events in their homes.

        At most `MAX_CHANGES`, all connected or all disconnected, one for each device. A repeated change, and
        one of a deleted device, has no effect. Raises Unavailable, NotConfirmed: publish them again.
        """
        script = CONNECT_DEVICES if changes[0].connected else DISCONNECT_DEVICES
        for _ in range(ATTEMPTS):
            answer = await self._write(ProjectSlot(project_id), script, boot_id, changes)
            if answer[0] != "partly":
                return
            moved = {
                int(each) for each, why in zip(answer[1::2], answer[2::2], strict=True) if why == "moved"
            }
            changes = [change for change in changes if change.device_id in moved]
            if not changes:
                return
        raise Unavailable

    async def of_node(self, project_id: int, boot_id: str) -> list[int]:
        """Some of the devices that have a node in their records, at most `MAX_CHANGES`."""
        index = ProjectSlot(project_id).node_devices(boot_id)
        return [int(each) for each in await self._database.read("ZRANGE", index, 0, MAX_CHANGES - 1)]

    async def _write(
        self, slot: ProjectSlot, script: Script, boot_id: str, changes: Sequence[PresenceChange]
    ) -> list[str]:
        places = await self._database.read(
            "HMGET", slot.device_places, *(change.device_id for change in changes)
        )
        keys, arguments = [slot.node_devices(boot_id)], list[Argument]([boot_id])
        for change, place in zip(changes, places, strict=True):
            # The home of the record, even if it is being deleted: nothing subscribes to that one.
            home, _, device_class = (place or b"0 ").decode().partition(" ")
            # The key of home 0 is declared, and never exists.
            keys += [
                slot.device(change.device_id),
                slot.device_presence(change.device_id),
                slot.home(int(home)),
            ]
            arguments += [change.device_id, change.generation, change.time_ms, home]
            arguments.append(_event(slot.project_id, int(home), change, device_class))
        return await self._database.change(script, slot, keys, arguments)


def _event(project_id: int, home_id: int, change: PresenceChange, device_class: str) -> bytes:
    event = _CONNECTED if change.connected else _DISCONNECTED
    return event_envelope(
        event, project_id, home_id, change.device_id, change.time_ms, device_class, None, 0, None
    )


def _nodes_of(*records: dict[str, str]) -> set[str]:
    """The boot ids of the nodes in these records."""
    return {
        name.removeprefix(NODE_PREFIX)
        for record in records
        for name in record
        if name.startswith(NODE_PREFIX)
    }


def _presence(record: dict[str, str], living: Set[str]) -> DevicePresence:
    connected, disconnected = record.get("connected"), record.get("disconnected")
    return DevicePresence(
        not living.isdisjoint(_nodes_of(record)),
        int(connected) if connected else None,
        int(disconnected) if disconnected else None,
    )
