"""Presence of devices: a record in the slot of the project, and the leases of the nodes that it names.

A device is connected while at least one live node has a command WebSocket of it. A record
(`ProjectSlot.device_presence`) has a field `@<boot id>` for each such node, and in `holders` their number.
The script that adds the first node publishes `_deviceConnected_`; the one that removes the last node
publishes `_deviceDisconnected_`. So each event is published once, however many nodes clean up after a dead
one.

A node is alive while its lease is, which it renews three times in each lease. The end of a lease is a time of
Redis' clock, which may be stepped: a hub without a battery learns the time minutes after its start. So each
process notes by its monotonic time when it saw a lease renewed, and how long the lease then had to go. Only
a lease that a process sees for the first time is compared with Redis' clock.

A lease that ended can be renewed (Redis was unavailable) until a node declares its owner dead. From then on
this boot id is dead for good, so that the end of its connections is published once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from homewire._core import event_envelope, parse_event
from homewire.devices.models import DevicePresence
from homewire.errors import Unavailable
from homewire.store.database import ATTEMPTS, PAGE, Argument, Database
from homewire.store.keys import NODES, ProjectSlot, node_projects
from homewire.store.script import Script, changing, lua, reading, removing, standalone

LEASES: Final = reading(lua(__package__, "list_leases"))
RENEW: Final = standalone(lua(__package__, "renew_lease"))
DECLARE_DEAD: Final = standalone(lua(__package__, "declare_dead"))

RELEASED: Final = 1
"""The end of a lease that its node released, in ms."""
MAX_DECLARED_DEAD: Final = 100
"""Nodes in one script."""
CACHE_S: Final = 0.25
"""How long an answer about the nodes that are alive is reused."""


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """A lease as this process read it; times of its monotonic clock, in seconds."""

    score: bytes
    """Its end by Redis' clock, as Redis writes it. A different one means that the lease was renewed."""
    at: float
    until: float
    is_first: bool
    """This process has not seen it being renewed."""


class Nodes:
    """Leases of nodes, and the projects of their connected devices."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._monotonic = database.clock.monotonic
        self.lease_s = 0.0
        """The length of leases, in a process that watches them all the time."""
        self._leases: dict[str, ObservedLease] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def alive(self, since: float = 0.0) -> frozenset[str]:
        """The boot ids of the nodes that are alive, read at most `CACHE_S` ago.

        With `since`, a monotonic time, read after it.
        """
        if not self._is_known(since):
            async with self._reading:
                if not self._is_known(since):
                    asked = self._monotonic()
                    self._note(asked, await self._database.ask(LEASES, [NODES]))
                    self._read_at = asked
        now = self._monotonic()
        return frozenset(boot_id for boot_id, seen in self._leases.items() if now < seen.until)

    def _note(self, at: float, found: Sequence[bytes]) -> None:
        now_ms, known, self._leases = int(found[0]), self._leases, {}
        for name, score in zip(found[1::2], found[2::2], strict=True):
            boot_id = name.decode()
            before = known.get(boot_id)
            if before is None or before.score != score:
                before = self._sighting(score, at, now_ms, is_first=before is None)
            self._leases[boot_id] = before

    def _sighting(self, score: bytes, at: float, now_ms: int, *, is_first: bool) -> ObservedLease:
        left_s = max(0.0, (float(score) - now_ms) / 1000)
        # Redis' clock may have been stepped between the renewal and this read.
        is_renewed = not is_first and float(score) > RELEASED
        return ObservedLease(score, at, at + (max(left_s, self.lease_s) if is_renewed else left_s), is_first)

    async def living(self, named: Set[str]) -> Set[str]:
        """The nodes among `named` that are alive, also one that started a moment ago."""
        asked = self._monotonic()
        if not named:
            return named
        living = named & await self.alive()
        # A named node was alive when its name was written, which may be later than the cached answer.
        return living if living == named else named & await self.alive(asked)

    def _is_known(self, since: float) -> bool:
        return self._read_at >= max(since, self._monotonic() - CACHE_S)

    async def renew(self, boot_id: str, lease_ms: int, *, new: bool = False) -> bool:
        """Renew the lease of a node for `lease_ms`. False: it was declared dead and needs another boot id.

        `new` begins the lease of a new boot id.
        """
        answer = await self._database.change_outside(RENEW, [NODES], [boot_id, lease_ms, int(new)])
        return bool(answer)

    async def declare_dead(self) -> frozenset[str]:
        """Declare the nodes dead whose leases ended. Returns the boot ids of all dead nodes.

        The caller has called `alive` regularly for at least `lease_s`.
        """
        await self.alive(self._monotonic())
        now = self._monotonic()
        over = [(boot_id, seen.score) for boot_id, seen in self._leases.items() if self._is_over(seen, now)]
        arguments = [part for each in over[:MAX_DECLARED_DEAD] for part in each]
        dead = await self._database.change_outside(DECLARE_DEAD, [NODES], arguments)
        return frozenset(boot_id.decode() for boot_id in dead)

    def _is_over(self, seen: ObservedLease, now: float) -> bool:
        # The end of a lease that was not seen being renewed may be a time before Redis' clock was stepped
        # back.
        return now >= (min(seen.until, seen.at + self.lease_s) if seen.is_first else seen.until)

    async def release(self, boot_id: str) -> None:
        """End the lease of a node that stops: other nodes may clean up after it at once."""
        await self._database.write("ZADD", NODES, "XX", RELEASED, boot_id)

    async def remove(self, boot_id: str) -> None:
        """Remove a node that left nothing to clean up."""
        await self._database.write("UNLINK", node_projects(boot_id))
        await self._database.write("ZREM", NODES, boot_id)

    async def add_project(self, boot_id: str, project_id: int) -> None:
        """Note a project before the node's first device of it: other nodes look there if the node dies."""
        await self._database.write("SADD", node_projects(boot_id), project_id)

    async def projects(self, boot_id: str) -> list[int]:
        """The projects whose devices a node has or had, ascending."""
        found: set[int] = set()
        cursor = 0
        while True:
            cursor, page = await self._database.read(
                "SSCAN", node_projects(boot_id), cursor, "COUNT", PAGE // 2
            )
            found.update(map(int, page))
            if int(cursor) == 0:
                return sorted(found)


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
