"""Provisioning on demand (spec 001): a member asks for a token, and the device becomes one by it."""

from __future__ import annotations

from typing import Final

from homewire.auth import tokens
from homewire.devices.models import Device
from homewire.devices.scripts import ISSUE_PROVISIONING_TOKEN, PROVISION_DEVICE
from homewire.provisioning.models import ProvisioningToken
from homewire.store import checks
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot

LIFETIME_MS: Final = 60 * 60 * 1000


class Provisioning:
    """The provisioning tokens of projects whose devices are provisioned on demand.

    A token is 256 random bits of which the SHA-256 is stored, works once, until it expires, and only as long
    as who asked for it is a member of the home.
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
        """A new token, shown this once, and what it stands for.

        Raises InvalidInput, and UnknownRecord (home) unless the user is a member of it.
        """
        slot = ProjectSlot(project_id)
        made = ProvisioningToken(
            home_id, checks.name("deviceClass", device_class), checks.text("deviceTag", tag), user_id,
            self._database.now_ms() + lifetime_ms,
        )  # fmt: skip
        token, reference = tokens.mint(project_id)
        answer = await self._database.change(
            ISSUE_PROVISIONING_TOKEN,
            slot,
            [slot.home(home_id), slot.home_members(home_id), slot.provisioning(reference.hash)],
            [home_id, user_id, made.device_class, made.tag, made.expires_ms],
        )
        require_ok(answer, project=project_id, home=home_id)
        return token, made

    async def get(self, token: str, project_id: int | None = None) -> ProvisioningToken | None:
        """What a token (of this project, if one is given) stands for; None for what is none, or no more."""
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

    async def redeem(
        self, token: str, stands_for: ProvisioningToken, user_id: int | None
    ) -> tuple[Device, str]:
        """Make the device that a token stands for; the device and its key, shown this once. One call wins.

        `user_id` is who calls for the device, if that is a user. Raises Conflict (INVALID_TOKEN), and
        UnknownRecord (home) for a user who is no member of it; the token can still be used then.
        """
        reference = tokens.parse(token)
        if reference is None:
            raise ValueError("this is no token that stands for anything")
        slot, home_id = ProjectSlot(reference.project_id), stands_for.home_id
        device = Device(
            await self._database.new_id(), slot.project_id, stands_for.device_class, "", stands_for.tag,
            self._database.now_ms(), home_id,
        )  # fmt: skip
        key, key_reference = tokens.mint(slot.project_id)
        answer = await self._database.change(
            PROVISION_DEVICE,
            slot,
            [
                slot.provisioning(reference.hash), slot.home(home_id), slot.home_members(home_id),
                slot.device(device.id), slot.devices, slot.device_places,
                slot.key(key_reference.hash), slot.home_devices(home_id), slot.user(stands_for.user_id),
            ],
            [device.id, device.created_ms, key_reference.hash, home_id, user_id or ""],
        )  # fmt: skip
        require_ok(answer, project=slot.project_id, home=home_id)
        return device, key
