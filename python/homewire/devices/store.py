"""Devices: their records, keys and claim codes, and the home that each is in (spec 001, *Devices*)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

import msgspec

from homewire.access_changes.records import RecordType
from homewire.auth import tokens
from homewire.devices.models import Device, DeviceLocation
from homewire.errors import UnknownRecord
from homewire.projects.store import rotate
from homewire.sessions.store import EndedSessions, Sessions
from homewire.store import checks
from homewire.store.database import ATTEMPTS, PAGE, Database, decoded, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, lua, removing

CREATE_DEVICE: Final = changing(lua(__package__, "create_device"), charges=True)
UPDATE_DEVICE: Final = changing(lua(__package__, "update_device"))
SET_CLAIMABLE: Final = changing(lua(__package__, "set_claimable"))
CLAIM_DEVICE: Final = changing(
    lua(__package__, "claim_device"), announces={RecordType.DEVICE_MOVED}, charges=True
)
MOVE_DEVICE: Final = changing(
    lua(__package__, "move_device"), announces={RecordType.DEVICE_MOVED}, charges=True
)
RELEASE_DEVICE: Final = removing(
    lua(__package__, "release_device"), announces={RecordType.DEVICE_MOVED}, charges=True
)
RELEASE_DEVICES: Final = removing(lua(__package__, "release_devices"), charges=True)
DELETE_DEVICES: Final = removing(
    lua(__package__, "delete_devices"), announces={RecordType.DEVICE_DELETED}, charges=True
)

CHUNK: Final = 200
"""Records read in one round trip, so that other requests do not wait for a longer one."""
MAX_REMOVED: Final = 40
"""Devices that one script takes out of a deleted home. Each touches up to 15 of the 1,000 elements."""
CLAIM_CODE_LENGTH: Final = 12
# Users type it from a label: no letters that look alike. 32 letters, 60 bits.
_CLAIM_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


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
        """Create a device. Returns its record, its key, which is not stored, and its claim code.

        Raises InvalidInput, UnknownRecord (project, home), QuotaExceeded.
        """
        device = Device(
            await self._database.new_id(), project_id,
            checks.name("deviceClass", device_class), checks.text("name", name or ""),
            checks.text("tag", tag or ""), self._database.now_ms(), home_id,
        )  # fmt: skip
        token, reference = tokens.mint(project_id)
        for _ in range(ATTEMPTS):
            claim_code = "".join(secrets.choice(_CLAIM_ALPHABET) for _ in range(CLAIM_CODE_LENGTH))
            answer = await self._store(device, reference.hash, claim_code)
            if answer != ["taken", "claim_code"]:
                require_ok(answer, project=project_id, home=home_id)
                return msgspec.structs.replace(device, claim_code=claim_code), token, claim_code
        raise retries_exhausted("claim code")

    async def get(self, project_id: int, device_id: int) -> Device | None:
        """A device; None without one of this id."""
        return (await self.with_presence(project_id, device_id))[0]

    async def with_presence(self, project_id: int, device_id: int) -> tuple[Device | None, dict[str, str]]:
        """A device, and the hash that `Presence.by_record` reads, in one round trip."""
        slot = ProjectSlot(project_id)
        # Deleted homes first: a device that is swept between the two reads counts as being in no home.
        replies, deleted_homes = await self._database.read_all_beside(
            slot.deleted_homes,
            ("HGETALL", slot.device(device_id)),
            ("HGETALL", slot.device_presence(device_id)),
        )
        record, presence = map(decoded, replies)
        device = _device(project_id, device_id, record, deleted_homes) if record else None
        return device, presence

    async def get_many(self, project_id: int, device_ids: Sequence[int]) -> list[Device]:
        """The devices of these ids that exist, in the order of `device_ids`."""
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
        """The devices of a home, or (None) of the project, by id; and how many there are.

        The first `skip` devices are left out; at most `limit` are returned.
        """
        ids, total = await self.slice(project_id, home_id, skip, limit)
        return await self.get_many(project_id, ids), total

    async def slice(
        self, project_id: int, home_id: int | None = None, skip: int = 0, limit: int | None = None
    ) -> tuple[list[int], int]:
        """The ids of the devices that `page` returns; and how many there are."""
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
        """Home and class of each device, without unknown ids. One command reads 1,000 devices."""
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
        """Replace the key of a device. Returns the new key, which is not stored.

        The old key and keys of node sessions are invalid when this returns. Raises UnknownRecord.
        """
        slot = ProjectSlot(project_id)
        token = await rotate(
            self._database, slot, slot.device(device_id), device=device_id, sessions=self._sessions
        )
        if token is None:
            raise UnknownRecord("device", device_id)
        return token

    async def move(self, project_id: int, device_id: int, home_id: int | None) -> None:
        """Move a device into a home, or (None) out of it. Its name and values of the old home are deleted.

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
                # Keys of home 0, which does not exist, are declared and not touched.
                [
                    slot.device(device_id), slot.device_places, slot.home(new), slot.home_devices(new),
                    slot.home_devices(old), *slot.device_belongings(device_id),
                ],
                [device_id, old, new],
            )  # fmt: skip
            if answer[0] != "moved":
                return require_ok(answer, project=project_id, home=home_id)
        raise retries_exhausted("device")

    async def update(self, device: Device, *, name: str | None = None, tag: str | None = None) -> None:
        """Set name or tag of a device. Raises InvalidInput, UnknownRecord if it left the home of `device`."""
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
        """Let users with the claim code claim a device until a time in ms; 0: no longer.

        Raises UnknownRecord, and Conflict (PERMISSION_DENIED) where devices are provisioned on demand.
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(SET_CLAIMABLE, slot, [slot.device(device_id)], [until_ms])
        require_ok(answer, project=project_id, device=device_id)

    async def claim(self, project_id: int, claim_code: str, home_id: int, user_id: int) -> int:
        """Put the device of a claim code into a home. Returns its id. One of several claims wins.

        Raises UnknownRecord (home) unless the user is a member of it, Conflict (DEVICE_ALREADY_IN_HOME) for
        a device that is in a home, and Conflict (DEVICE_NOT_CLAIMABLE) for an unknown code or a device that
        is not claimable now.
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
        """Take a device out of its home, and delete what it stored there (spec 001, *Delete Device*).

        A pre-provisioned device keeps key, claim code and tag, and can be claimed again. A device that was
        provisioned on demand is deleted with its key. Raises UnknownRecord if it left that home.
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
        """Take all devices out of a deleted home, in pages. Can be repeated at any point.

        Keys of devices that were provisioned on demand are invalid when this returns. No device acts in the
        home from its tombstone on.
        """
        slot = ProjectSlot(project_id)
        remove = self._delete_from if await self._on_demand(slot) else self._release_from
        async for page in self._database.index_pages(slot.home_devices(home_id)):
            for start in range(0, len(page), MAX_REMOVED):
                await remove(slot, home_id, page[start : start + MAX_REMOVED])

    async def delete(self, project_id: int, device_id: int) -> None:
        """Delete a device, its key and what it stored in its home, in one step. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        for _ in range(ATTEMPTS):
            record = await self._database.read_hash(slot.device(device_id))
            if not record:
                raise UnknownRecord("device", device_id)
            if await self._delete(slot, int(record["home"]), {device_id: record}):
                return
        raise retries_exhausted("device")

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
        raise retries_exhausted("device")

    async def _delete(self, slot: ProjectSlot, home_id: int, records: Mapping[int, dict[str, str]]) -> bool:
        """Delete devices of one home. False, with nothing deleted, if one changed since it was read."""
        # Ended sessions first: after a crash in between no other code would find them.
        indexes = [slot.device_ended_sessions(device_id) for device_id in records]
        counts = await self._database.read_together(*(("EXISTS", index) for index in indexes))
        for index in (index for index, count in zip(indexes, counts, strict=True) if count):
            await self._ended.delete_all(slot, index)
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


# Devices of a home share an object: to create one takes 1.3 µs, and a bulk request needs 1,000.
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
