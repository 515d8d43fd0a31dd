"""Which devices are connected: the record in the project's slot, and the leases of the nodes it names.

`store/scripts/presence.py` says what is in a record. A device is connected while at least one node holds a
command WebSocket of it; its `_deviceConnected_` event is sent by the step that writes the first holder
into the record, and `_deviceDisconnected_` by the one that takes out the last. So both come once, and by
turns, whoever holds the device meanwhile, and however many nodes announce what a dead one left.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from homewire._core import event_envelope, parse_event
from homewire.errors import Unavailable
from homewire.model import DevicePresence
from homewire.store.database import ATTEMPTS, Argument, Database
from homewire.store.keys import ProjectSlot
from homewire.store.nodes import Nodes
from homewire.store.scripts.presence import JOIN, LEAVE
from homewire.store.scripts.script import Script

HOLDER: Final = "@"
"""A field of this prefix and a boot id stands in the record while that node holds a socket of the device."""
CHUNK: Final = 200
"""Records read in one round trip: others wait no longer than for so many."""
MOST_WORDS: Final = 100
"""Devices in one script, which touches ten elements for each at most."""
DEAD: Final = 0
"""The generation of what is said about a node that is dead, by somebody else."""
# The specification gives them no event data, so they have none.
_CONNECTED: Final = parse_event(b'{"eventType":"_deviceConnected_"}')
_DISCONNECTED: Final = parse_event(b'{"eventType":"_deviceDisconnected_"}')


@dataclass(frozen=True, slots=True)
class Word:
    """What a node has to say about one device: it holds it from this time (ms) on, or no more."""

    device_id: int
    holds: bool
    generation: int
    """Counted up by each node from 1 on: a later word holds."""
    time_ms: int


class Presence:
    """Who is connected."""

    def __init__(self, database: Database, nodes: Nodes) -> None:
        self._database = database
        self._nodes = nodes

    async def of(self, project_id: int, device_ids: Sequence[int]) -> dict[int, DevicePresence]:
        """The presence of each of these devices; of one that never connected, or is unknown, the empty one.

        A device is connected while the record says so of a node whose lease lives: what a node that was
        killed left behind stops counting with its lease, before anybody tidied up.
        """
        slot, found = ProjectSlot(project_id), dict[int, DevicePresence]()
        for start in range(0, len(device_ids), CHUNK):
            page = device_ids[start : start + CHUNK]
            records = await self._database.read_hashes([slot.device_presence(each) for each in page])
            living = await self._nodes.living(_holders(*records))
            found.update(
                (each, _presence(record, living)) for each, record in zip(page, records, strict=True)
            )
        return found

    async def by_record(self, record: dict[str, str]) -> DevicePresence:
        """The presence of a device whose record was read already (`Devices.look_at`)."""
        return _presence(record, await self._nodes.living(_holders(record)))

    async def say(self, project_id: int, boot_id: str, words: Sequence[Word]) -> None:
        """Write down what a node has to say about devices of a project, and tell their homes.

        At most `MOST_WORDS`, all of the same kind, one for each device. Of what is repeated, and of devices
        that exist no more, nothing comes. Raises Unavailable, NotConfirmed: to be said again.
        """
        script = JOIN if words[0].holds else LEAVE
        for _ in range(ATTEMPTS):
            answer = await self._say_once(ProjectSlot(project_id), script, boot_id, words)
            if answer[0] != "partly":
                return
            moved = {
                int(each) for each, why in zip(answer[1::2], answer[2::2], strict=True) if why == "moved"
            }
            words = [word for word in words if word.device_id in moved]
            if not words:
                return
        raise Unavailable

    async def held_by(self, project_id: int, boot_id: str) -> list[int]:
        """Some of the devices that a node holds by the records, at most `MOST_WORDS`."""
        index = ProjectSlot(project_id).held_devices(boot_id)
        return [int(each) for each in await self._database.read("ZRANGE", index, 0, MOST_WORDS - 1)]

    async def _say_once(
        self, slot: ProjectSlot, script: Script, boot_id: str, words: Sequence[Word]
    ) -> list[str]:
        places = await self._database.read("HMGET", slot.device_places, *(word.device_id for word in words))
        keys, arguments = [slot.held_devices(boot_id)], list[Argument]([boot_id])
        for word, place in zip(words, places, strict=True):
            # The home that the record names, also if it is being deleted: nobody hears of that one.
            home, _, device_class = (place or b"0 ").decode().partition(" ")
            # That of home 0, which is none, is named and never there.
            keys += [slot.device(word.device_id), slot.device_presence(word.device_id), slot.home(int(home))]
            arguments += [word.device_id, word.generation, word.time_ms, home]
            arguments.append(_event(slot.project_id, int(home), word, device_class))
        return await self._database.change(script, slot, keys, arguments)


def _event(project_id: int, home_id: int, word: Word, device_class: str) -> bytes:
    happened = _CONNECTED if word.holds else _DISCONNECTED
    return event_envelope(
        happened, project_id, home_id, word.device_id, word.time_ms, device_class, None, 0, None
    )


def _holders(*records: dict[str, str]) -> set[str]:
    """The boot ids of the nodes that hold one of these devices, as the records say."""
    return {name.removeprefix(HOLDER) for record in records for name in record if name.startswith(HOLDER)}


def _presence(record: dict[str, str], living: Set[str]) -> DevicePresence:
    came, went = record.get("connected"), record.get("disconnected")
    return DevicePresence(
        not living.isdisjoint(_holders(record)),
        int(came) if came else None,
        int(went) if went else None,
    )
