"""Provisioning on demand (spec 001): a member of a home gets a token, which creates a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from homewire.auth import tokens
from homewire.devices.models import Device
from homewire.store import checks
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, lua

ISSUE_PROVISIONING_TOKEN: Final = changing(lua(__package__, "issue_provisioning_token"), charges=True)
PROVISION_DEVICE: Final = changing(lua(__package__, "provision_device"), charges=True)

LIFETIME_MS: Final = 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class ProvisioningToken:
    """What is stored of a provisioning token, found by its hash."""

    home_id: int
    device_class: str
    tag: str
    user_id: int
    """The user who asked for it. The token is valid as long as this user is a member of the home."""
    expires_ms: int


class Provisioning:
    """The provisioning tokens of projects whose devices are provisioned on demand.

    A token is 256 random bits, of which the SHA-256 is stored. It works once and until it expires, as long as
    the user who asked for it is a member of the home.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self,
        project_id: int,
        home_id: int,
        user_id: int,
        device_class: str,
        tag: str = "",
        lifetime_ms: int = LIFETIME_MS,
    ) -> tuple[str, ProvisioningToken]:
        """Issue a token. Returns it, which is not stored, and its record.

        Raises InvalidInput, QuotaExceeded, and UnknownRecord (home) unless the user is a member of it.
        """
        slot = ProjectSlot(project_id)
        issued = ProvisioningToken(
            home_id, checks.name("deviceClass", device_class), checks.text("deviceTag", tag), user_id,
            self._database.now_ms() + lifetime_ms,
        )  # fmt: skip
        token, reference = tokens.mint(project_id)
        answer = await self._database.change(
            ISSUE_PROVISIONING_TOKEN,
            slot,
            [slot.home(home_id), slot.home_members(home_id), slot.provisioning(reference.hash)],
            [home_id, user_id, issued.device_class, issued.tag, issued.expires_ms],
        )
        require_ok(answer, project=project_id, home=home_id)
        return token, issued

    async def get(self, token: str, project_id: int | None = None) -> ProvisioningToken | None:
        """The record of a token (of this project, if given); None for an unknown or expired one."""
        reference = tokens.parse(token)
        if reference is None or project_id not in (None, reference.project_id):
            return None
        record = await self._database.read_hash(
            ProjectSlot(reference.project_id).provisioning(reference.hash)
        )
        if not record or int(record["expires"]) <= self._database.now_ms():
            return None
        return ProvisioningToken(
            int(record["home"]), record["class"], record["tag"], int(record["user"]), int(record["expires"])
        )

    async def redeem(self, token: str, record: ProvisioningToken, user_id: int | None) -> tuple[Device, str]:
        """Create the device of a token. Returns the device and its key, which is not stored. One call wins.

        `user_id` is the caller, if that is a user. Raises Conflict (INVALID_TOKEN), and UnknownRecord (home)
        if the user is no member of it; the token stays valid then.
        """
        reference = tokens.parse(token)
        if reference is None:
            raise ValueError("not a token")
        slot, home_id = ProjectSlot(reference.project_id), record.home_id
        device = Device(
            await self._database.new_id(), slot.project_id, record.device_class, "", record.tag,
            self._database.now_ms(), home_id,
        )  # fmt: skip
        key, key_reference = tokens.mint(slot.project_id)
        answer = await self._database.change(
            PROVISION_DEVICE,
            slot,
            [
                slot.provisioning(reference.hash), slot.home(home_id), slot.home_members(home_id),
                slot.device(device.id), slot.devices, slot.device_places,
                slot.key(key_reference.hash), slot.home_devices(home_id), slot.user(record.user_id),
            ],
            [device.id, device.created_ms, key_reference.hash, home_id, user_id or ""],
        )  # fmt: skip
        require_ok(answer, project=slot.project_id, home=home_id)
        return device, key
