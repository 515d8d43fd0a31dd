"""Devices, their keys and claim codes, and where they are."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

import msgspec

from homewire.auth import tokens
from homewire.devices.models import Device, DeviceLocation
from homewire.devices.scripts import (
    CLAIM_DEVICE,
    CREATE_DEVICE,
    DELETE_DEVICES,
    MOVE_DEVICE,
    RELEASE_DEVICE,
    RELEASE_DEVICES,
    SET_CLAIMABLE,
    UPDATE_DEVICE,
)
from homewire.errors import UnknownRecord
from homewire.projects.keys import rotate
from homewire.sessions.scripts import EndedSessions
from homewire.sessions.store import Sessions
from homewire.store import checks
from homewire.store.database import ATTEMPTS, PAGE, Database, decoded, outrun, require_ok
from homewire.store.keys import ProjectSlot

CHUNK: Final = 200
"""Records read in one round trip: others wait no longer than for so many."""
SWEPT: Final = 40
"""Devices that one script takes out of a deleted home; of the 1,000 elements that it may touch, each takes
fifteen at most."""
CLAIM_CODE_LENGTH: Final = 12
# People type it from a label: nothing that looks like something else. 32 letters, 60 bits.
_CLAIM_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class Devices:
    """The devices of a project."""

    def __init__(self, database: Database, sessions: Sessions) -> None:
        self._database = database
        self._sessions = sessions
        self._ended = EndedSessions(database)

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
                return msgspec.structs.replace(device, claim_code=claim_code), token, claim_code
        raise outrun("claim code")

    async def get(self, project_id: int, device_id: int) -> Device | None:
        """A device, None if there is none of this id."""
        return (await self.look_at(project_id, device_id))[0]

    async def look_at(self, project_id: int, device_id: int) -> tuple[Device | None, dict[str, str]]:
        """A device, and what `Presence.by_record` reads, in one round trip."""
        slot = ProjectSlot(project_id)
        # Before its record: one that is swept between the two is told to be in no home already.
        replies, deleted_homes = await self._database.read_all_beside(
            slot.deleted_homes,
            ("HGETALL", slot.device(device_id)),
            ("HGETALL", slot.device_presence(device_id)),
        )
        record, presence = map(decoded, replies)
        device = _device(project_id, device_id, record, deleted_homes) if record else None
        return device, presence

    async def get_many(self, project_id: int, device_ids: Sequence[int]) -> list[Device]:
        """Those of the devices that exist, in the order of `device_ids`."""
        slot = ProjectSlot(project_id)
        pages = self._database.index_pages(slot.deleted_homes)
        deleted_homes = frozenset([each async for page in pages for each in page])
        found: list[Device] = []
        for start in range(0, len(device_ids), CHUNK):
            chunk = device_ids[start : start + CHUNK]
            records = await self._database.read_hashes([slot.device(each) for each in chunk])
            found += [
                _device(project_id, each, record, deleted_homes)
                for each, record in zip(chunk, records, strict=True)
                if record
            ]
        return found

    async def page(
        self, project_id: int, home_id: int | None = None, skip: int = 0, limit: int | None = None
    ) -> tuple[list[Device], int]:
        """The devices of a home, or (None) of the project, by id, without the first `skip` and at most
        `limit` of them; and how many there are."""
        ids, total = await self.slice(project_id, home_id, skip, limit)
        return await self.get_many(project_id, ids), total

    async def slice(
        self, project_id: int, home_id: int | None = None, skip: int = 0, limit: int | None = None
    ) -> tuple[list[int], int]:
        """The ids of the same devices; and how many there are."""
        slot = ProjectSlot(project_id)
        index = slot.devices if home_id is None else slot.home_devices(home_id)
        ids, total = await self._database.index_slice(index, skip, limit)
        if home_id is not None and not await self._database.present(slot.homes, [home_id]):
            return [], 0
        return ids, total

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
        """A new key, shown this once; the old one and those of node sessions are dead when this returns.

        Raises UnknownRecord.
        """
        slot = ProjectSlot(project_id)
        token = await rotate(
            self._database, slot, slot.device(device_id), device=device_id, sessions=self._sessions
        )
        if token is None:
            raise UnknownRecord("device", device_id)
        return token

    async def move(self, project_id: int, device_id: int, home_id: int | None) -> None:
        """Put a device into a home, or (None) out of its own; its name and what it has there stay behind.

        Raises UnknownRecord (device, home).
        """
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
                    slot.home_devices(old), *slot.device_belongings(device_id),
                ],
                [device_id, old, new],
            )  # fmt: skip
            if answer[0] != "moved":
                return require_ok(answer, project=project_id, home=home_id)
        raise outrun("device")

    async def update(self, device: Device, *, name: str | None = None, tag: str | None = None) -> None:
        """Rename a device, or tag it anew. Raises UnknownRecord if it left the home that it was read in."""
        fields = [
            *(() if name is None else ("name", checks.text("name", name))),
            *(() if tag is None else ("tag", checks.text("tag", tag))),
        ]
        if fields:
            slot = ProjectSlot(device.project_id)
            answer = await self._database.change(
                UPDATE_DEVICE, slot, [slot.device(device.id)], [device.home_id or 0, *fields]
            )
            require_ok(answer, project=device.project_id, device=device.id)

    async def set_claimable(self, project_id: int, device_id: int, until_ms: int) -> None:
        """Let whoever has its code claim a device, until some moment (ms); 0: no longer.

        Raises UnknownRecord, and Conflict (PERMISSION_DENIED) where devices are provisioned on demand.
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(SET_CLAIMABLE, slot, [slot.device(device_id)], [until_ms])
        require_ok(answer, project=project_id, device=device_id)

    async def claim(self, project_id: int, claim_code: str, home_id: int, user_id: int) -> int:
        """Put the device of a claim code into the home of a user; its id. Of several claims one wins.

        Raises UnknownRecord (home) unless the user is a member of it, Conflict (DEVICE_ALREADY_IN_HOME) for
        a device that is in a home, and Conflict (DEVICE_NOT_CLAIMABLE) for everything else: no such code,
        or its device does not let itself be claimed now.
        """
        slot = ProjectSlot(project_id)
        code = checks.text("claimCode", claim_code).strip().upper()
        found = await self._database.read("HGET", slot.claim_codes, code)
        device_id = int(found or 0)
        answer = await self._database.change(
            CLAIM_DEVICE,
            slot,
            [
                slot.device(device_id), slot.device_places, slot.claim_codes, slot.home(home_id),
                slot.home_members(home_id), slot.home_devices(home_id),
                slot.values("device", device_id), slot.value_keys("device", device_id),
            ],
            [device_id, code, home_id, user_id, self._database.now_ms()],
        )  # fmt: skip
        require_ok(answer, project=project_id, home=home_id)
        return device_id

    async def leave_home(self, device: Device) -> None:
        """Take a device out of its home, with what it has only there, as its member may (spec 001).

        A pre-provisioned one can be claimed by somebody else then: key, claim code and tag stay. One that was
        provisioned on demand is deleted with its key. Raises UnknownRecord if it is in that home no more.
        """
        if device.home_id is None:
            raise UnknownRecord("device", device.id)
        slot = ProjectSlot(device.project_id)
        if await self._on_demand(slot):
            return await self.delete(device.project_id, device.id)
        answer = await self._database.change(
            RELEASE_DEVICE,
            slot,
            [
                slot.home_devices(device.home_id), slot.device_places,
                slot.device(device.id), *slot.device_belongings(device.id),
            ],
            [device.id, device.home_id],
        )  # fmt: skip
        return require_ok(answer, project=device.project_id, device=device.id)

    async def leave_deleted_home(self, project_id: int, home_id: int) -> None:
        """The same for all devices of a home whose tombstone stands. In pages; can be repeated at any point.

        Keys of devices that were provisioned on demand are dead when this returns. Already from the tombstone
        on no device acts in the home.
        """
        slot = ProjectSlot(project_id)
        remove = self._delete_from if await self._on_demand(slot) else self._release_from
        async for page in self._database.index_pages(slot.home_devices(home_id)):
            for start in range(0, len(page), SWEPT):
                await remove(slot, home_id, page[start : start + SWEPT])

    async def delete(self, project_id: int, device_id: int) -> None:
        """Delete a device, its key and what it has in its home in one step. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        for _ in range(ATTEMPTS):
            record = await self._database.read_hash(slot.device(device_id))
            if not record:
                raise UnknownRecord("device", device_id)
            if await self._delete(slot, int(record["home"]), {device_id: record}):
                return
        raise outrun("device")

    async def _on_demand(self, slot: ProjectSlot) -> bool:
        return bool(await self._database.read("HGET", slot.project, "on_demand") == b"1")

    async def _release_from(self, slot: ProjectSlot, home_id: int, device_ids: Sequence[int]) -> None:
        stride = 1 + len(slot.device_belongings(0))
        names = [name for each in device_ids for name in (slot.device(each), *slot.device_belongings(each))]
        answer = await self._database.change(
            RELEASE_DEVICES,
            slot,
            [slot.home_devices(home_id), slot.device_places, *names],
            [home_id, stride, *device_ids],
        )
        require_ok(answer, project=slot.project_id)

    async def _delete_from(self, slot: ProjectSlot, home_id: int, device_ids: Sequence[int]) -> None:
        for _ in range(ATTEMPTS):
            read = await self._database.read_hashes([slot.device(each) for each in device_ids])
            records = dict(zip(device_ids, read, strict=True))
            here = {each: record for each, record in records.items() if record.get("home") == str(home_id)}
            if elsewhere := [each for each in device_ids if each not in here]:
                await self._database.write("ZREM", slot.home_devices(home_id), *elsewhere)
            if not here or await self._delete(slot, home_id, here):
                return
        raise outrun("device")

    async def _delete(self, slot: ProjectSlot, home_id: int, records: Mapping[int, dict[str, str]]) -> bool:
        """Delete devices of one home; False, and nothing is, if one of them is not as it was read."""
        # Before: after a crash nobody would come to them any more.
        indexes = [slot.device_ended_sessions(device_id) for device_id in records]
        counts = await self._database.read_together(*(("EXISTS", index) for index in indexes))
        for index in (index for index, count in zip(indexes, counts, strict=True) if count):
            await self._ended.forget_all(slot, index)
        names: list[str] = []
        arguments: list[str | int] = []
        for device_id, record in records.items():
            names += (slot.device(device_id), slot.device_sessions(device_id), slot.key(record["key"]))
            names += slot.device_belongings(device_id)
            names.append(slot.device_presence(device_id))
            arguments += (device_id, record["key"], record["claim_code"])
        answer = await self._database.change(
            DELETE_DEVICES,
            slot,
            [slot.home_devices(home_id), slot.devices, slot.device_places, slot.claim_codes, *names],
            [home_id, len(names) // len(records), *arguments],
        )
        if answer[0] == "in_session":
            for device_id in records:
                await self._sessions.end_all_of_device(slot.project_id, device_id)
        if answer[0] in ("moved", "in_session"):
            return False
        require_ok(answer, project=slot.project_id)
        return True

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
    )
