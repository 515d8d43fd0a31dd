"""Which devices are connected: the record in the project's slot, and the leases of the nodes it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from homewire.model import DevicePresence
from homewire.store.database import PAGE, Database
from homewire.store.keys import ProjectSlot
from homewire.store.nodes import Nodes

HOLDER: Final = "@"
"""A field of this prefix and a boot id stands in the record while that node holds a socket of the device."""


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
        for start in range(0, len(device_ids), PAGE):
            page = device_ids[start : start + PAGE]
            records = await self._database.read_hashes([slot.device_presence(each) for each in page])
            alive = await self._nodes.alive() if any(records) else frozenset[str]()
            found.update((each, _presence(record, alive)) for each, record in zip(page, records, strict=True))
        return found


def _presence(record: dict[str, str], alive: frozenset[str]) -> DevicePresence:
    holders = (name.removeprefix(HOLDER) for name in record if name.startswith(HOLDER))
    came, went = record.get("connected"), record.get("disconnected")
    return DevicePresence(
        any(holder in alive for holder in holders),
        int(came) if came else None,
        int(went) if went else None,
    )
