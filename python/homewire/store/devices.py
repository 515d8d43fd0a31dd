"""Devices, their keys and claim codes, and where they are."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from homewire.errors import UnknownRecord
from homewire.model import Device, DeviceLocation
from homewire.store import checks, tokens
from homewire.store.database import ATTEMPTS, PAGE, Database, decoded, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.rotation import rotate
from homewire.store.scripts.devices import CREATE_DEVICE, DELETE_DEVICE, MOVE_DEVICE

CLAIM_CODE_LENGTH: Final = 12
# People type it from a label: nothing that looks like something else. 32 letters, 60 bits.
_CLAIM_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class Devices:
    """The devices of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        project_id: int,
        device_class: str,
        home_id: int | None = None,
        tag: str | None = None,
        name: str | None = None,
    ) -> tuple[Device, str, str]:
        """A new device, its key (shown this once) and claim code. Raises UnknownRecord (project, home)."""
        device = Device(
            await self._database.new_id(), project_id,
            checks.name("deviceClass", device_class), checks.text("name", name or ""),
            checks.text("tag", tag or ""), self._database.now_ms(), home_id,
        )  # fmt: skip
        token, reference = tokens.mint(project_id)
        for _ in range(ATTEMPTS):
            claim_code = "".join(secrets.choice(_CLAIM_LETTERS) for _ in range(CLAIM_CODE_LENGTH))
            answer = await self._store(device, reference.hash, claim_code)
            if answer != ["taken", "claim_code"]:
                require_ok(answer, project=project_id, home=home_id)
                return replace(device, claim_code=claim_code), token, claim_code
        raise outrun("claim code")

    async def get(self, project_id: int, device_id: int) -> Device | None:
        """A device, None if there is none of this id."""
        slot = ProjectSlot(project_id)
        # Before its record: one that is swept between the two is told to be in no home already.
        gone = slot.deleted_homes
        reply, deleted_homes = await self._database.read_beside(gone, "HGETALL", slot.device(device_id))
        record = decoded(reply)
        return _device(project_id, device_id, record, deleted_homes) if record else None

    async def of_home(self, project_id: int, home_id: int) -> list[int]:
        """The ids of the devices of a home, ascending."""
        slot = ProjectSlot(project_id)
        index = slot.home_devices(home_id)
        found = [device_id async for page in self._database.index_pages(index) for device_id in page]
        return found if await self._database.present(slot.homes, [home_id]) else []

    async def locate(self, project_id: int, device_ids: Sequence[int]) -> dict[int, DeviceLocation]:
        """Home and class of each device; unknown ids are missing. One command for a thousand."""
        found: dict[int, DeviceLocation] = {}
        slot = ProjectSlot(project_id)
        for start in range(0, len(device_ids), PAGE):
            page = device_ids[start : start + PAGE]
            reply, deleted_homes = await self._database.read_beside(
                slot.deleted_homes, "HMGET", slot.device_places, *page
            )
            locations = (
                (each, _location(place)) for each, place in zip(page, reply, strict=True) if place is not None
            )
            found.update(
                (each, replace(location, home_id=None) if location.home_id in deleted_homes else location)
                for each, location in locations
            )
        return found

    async def rotate_key(self, project_id: int, device_id: int) -> str:
        """A new key, shown this once; the old one is dead when this returns. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        token = await rotate(self._database, slot, slot.device(device_id), device=device_id)
        if token is None:
            raise UnknownRecord("device", device_id)
        return token

    async def move(self, project_id: int, device_id: int, home_id: int | None) -> None:
        """Put a device into a home, or (None) out of its own. Raises UnknownRecord (device, home)."""
        slot = ProjectSlot(project_id)
        new = home_id or 0
        for _ in range(ATTEMPTS):
            record = await self._database.read_hash(slot.device(device_id))
            if not record:
                raise UnknownRecord("device", device_id)
            old = int(record["home"])
            answer = await self._database.change(
                MOVE_DEVICE,
                slot,
                # Those of home 0, which is none, are named and not touched.
                [
                    slot.device(device_id), slot.device_places, slot.home(new), slot.home_devices(new),
                    slot.home_devices(old),
                ],
                [device_id, old, new],
            )  # fmt: skip
            if answer[0] != "moved":
                return require_ok(answer, project=project_id, home=home_id)
        raise outrun("device")

    async def delete(self, project_id: int, device_id: int) -> None:
        """Delete a device and its key in one step. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        for _ in range(ATTEMPTS):
            record = await self._database.read_hash(slot.device(device_id))
            if not record:
                raise UnknownRecord("device", device_id)
            answer = await self._remove(slot, device_id, record)
            if answer[0] != "moved":
                return require_ok(answer, project=project_id)
        raise outrun("device")

    async def _store(self, device: Device, token_hash: str, claim_code: str) -> list[str]:
        slot = ProjectSlot(device.project_id)
        home = (
            [] if device.home_id is None else [slot.home(device.home_id), slot.home_devices(device.home_id)]
        )
        return await self._database.change(
            CREATE_DEVICE,
            slot,
            [
                slot.device(device.id), slot.devices, slot.device_places,
                slot.claim_codes, slot.key(token_hash), *home,
            ],
            [
                device.id, device.created_ms, device.device_class, device.name, device.tag,
                token_hash, claim_code, device.home_id or 0,
            ],
        )  # fmt: skip

    async def _remove(self, slot: ProjectSlot, device_id: int, record: dict[str, str]) -> list[str]:
        home_id = int(record["home"])
        return await self._database.change(
            DELETE_DEVICE,
            slot,
            [
                slot.device(device_id), slot.devices, slot.device_places,
                slot.claim_codes, slot.key(record["key"]), *([slot.home_devices(home_id)] if home_id else []),
            ],
            [device_id, record["key"], record["claim_code"], home_id],
        )  # fmt: skip


# Devices of a home share an answer; making one anew costs 1.3 µs, of a thousand in a bulk request.
@lru_cache(maxsize=16_384)
def _location(place: bytes) -> DeviceLocation:
    home, device_class = place.decode().split(" ", 1)
    return DeviceLocation(int(home) or None, device_class)


def _device(project_id: int, device_id: int, record: dict[str, str], deleted_homes: frozenset[int]) -> Device:
    home_id = int(record["home"]) or None
    return Device(
        device_id,
        project_id,
        record["class"],
        record["name"],
        record["tag"],
        int(record["created"]),
        None if home_id in deleted_homes else home_id,
        record["claim_code"],
        claimed_ms=int(record.get("claimed", 0)),
        claimable_until_ms=int(record.get("claimable_until", 0)),
        connected=record.get("connected", "0") == "1",
        last_connect_ms=int(record.get("last_connect", 0)),
        last_disconnect_ms=int(record.get("last_disconnect", 0)),
    )
