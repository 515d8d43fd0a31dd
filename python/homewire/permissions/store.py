"""Permissions of users, in projects with access by permission: granted to users, or to their groups.

A permission is stored as its text, as in `read:device:17`. A user has it from a grant and from each group
that has it. A hash counts these sources; a user who loses the last one loses the permission.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.entities.store import is_id
from homewire.errors import InvalidInput
from homewire.permissions.models import HeldPermission, Permission, PermissionKind
from homewire.store.database import PAGE, Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, lua, removing

GRANT_TO_USER: Final = changing(lua(__package__, "grant_to_user"), charges=True)
REVOKE_FROM_USER: Final = removing(
    lua(__package__, "revoke_from_user"), announces={RecordType.PERMISSION_ENDED}, charges=True
)

USER_GRANTS: Final = 400
"""Permissions granted to one user. With those of their groups a user has some thousands."""
_OF_HOMES: Final = tuple(f"{kind}:" for kind in PermissionKind if kind.noun == "home")


class Permissions:
    """The permissions of a project's users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, project_id: int, user_id: int, permission: Permission) -> None:
        """Grant a permission to a user. Without effect if it was granted before.

        Raises UnknownRecord (project, user, home, device), Conflict (TOO_MANY_PERMISSIONS).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            GRANT_TO_USER,
            slot,
            [
                slot.user(user_id), slot.user_grants(user_id), slot.user_permissions(user_id),
                resource_key(slot, permission),
            ],
            [str(permission), permission.kind.noun, USER_GRANTS],
        )  # fmt: skip
        require_ok(
            answer, project=project_id, user=user_id, home=permission.subject, device=permission.subject
        )

    async def revoke(self, project_id: int, user_id: int, permission: Permission) -> None:
        """Revoke a grant. The user keeps a permission that a group of theirs has.

        Raises UnknownRecord (project; permission, if it was not granted to this user).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            REVOKE_FROM_USER,
            slot,
            [
                slot.user_grants(user_id), slot.user_permissions(user_id),
                slot.device_places, slot.entity_places,
            ],
            [str(permission), user_id],
        )  # fmt: skip
        require_ok(answer, project=project_id, permission=permission)

    async def of_user(self, project_id: int, user_id: int) -> list[HeldPermission]:
        """The permissions of a user, in the order of their texts, with their sources."""
        slot = ProjectSlot(project_id)
        direct, groups = await asyncio.gather(
            self._database.read("ZRANGE", slot.user_grants(user_id), 0, -1),
            self._database.read("ZRANGE", slot.user_groups(user_id), 0, -1),
        )
        by_groups = await asyncio.gather(
            *(self._database.read("ZRANGE", slot.group_permissions(int(each)), 0, -1) for each in groups)
        )
        sources: dict[bytes, list[int]] = {text: [] for text in direct}
        for group_id, texts in zip(groups, by_groups, strict=True):
            for text in texts:
                sources.setdefault(text, []).append(int(group_id))
        granted = frozenset(direct)
        return [
            HeldPermission(parse_stored(text), text in granted, tuple(sources[text]))
            for text in sorted(sources)
        ]

    async def held(self, project_id: int, user_id: int, texts: Collection[str]) -> set[str]:
        """The permissions among `texts` that the user has, without those for deleted homes.

        Devices and entities may have been deleted or moved: the caller looks up where they are.
        """
        slot, wanted, found = ProjectSlot(project_id), sorted(set(texts)), set[str]()
        for start in range(0, len(wanted), PAGE):
            page = wanted[start : start + PAGE]
            reply = await self._database.read("HMGET", slot.user_permissions(user_id), *page)
            found.update(text for text, sources in zip(page, reply, strict=True) if sources is not None)
        # Permissions for a deleted home stay until they are revoked or the user is deleted.
        homes = {text: int(text.rpartition(":")[2]) for text in found if text.startswith(_OF_HOMES)}
        existing = await self._database.present(slot.homes, list(homes.values()))
        return found.difference(text for text, home_id in homes.items() if home_id not in existing)


_SPELLED: Final = ", ".join(f"{kind}:<id>" for kind in PermissionKind)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
"""The only spelling of an id: a permission has one text."""


def parse(field: str, text: str) -> Permission:
    """Parse the text of a permission. Raises InvalidInput, naming `field`."""
    for kind in PermissionKind:
        subject = text.removeprefix(f"{kind}:")
        if subject != text:
            return Permission(kind, _checked(field, kind.noun, subject))
    raise InvalidInput(field, f"must be one of {_SPELLED}")


def parse_stored(text: bytes) -> Permission:
    """Parse a text that comes from the store."""
    action, kind, subject = text.decode().split(":", 2)
    return Permission(PermissionKind(f"{action}:{kind}"), subject)


def of_ids(kind: PermissionKind, ids: Iterable[int | str]) -> list[str]:
    """The texts of a permission for each of these homes, devices or entities."""
    return [f"{kind}:{each}" for each in ids]


def resource_key(slot: ProjectSlot, permission: Permission) -> str:
    """The key that exists as long as the home or device of a permission.

    For an entity it is the key of the project: a permission may name an entity that does not exist.
    """
    match permission.kind.noun:
        case "home":
            return slot.home(int(permission.subject))
        case "device":
            return slot.device(int(permission.subject))
    return slot.project


def resource_ids(permission: Permission) -> dict[str, str]:
    """The id of the home or device of a permission, as `require_ok` names it in an error."""
    return {"home": permission.subject, "device": permission.subject}


def _checked(field: str, noun: str, subject: str) -> str:
    if noun == "entity":
        if not is_id(subject):
            raise InvalidInput(field, "must name an entity by 1 to 256 bytes of UTF-8")
    elif not _NUMBER.fullmatch(subject):
        raise InvalidInput(field, f"must name a {noun} by its id, in digits")
    return subject
