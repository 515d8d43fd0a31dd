"""Which rights users have, in projects with access by permission: granted to them, or by their groups."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from homewire.model import HeldRight, Right, RightKind
from homewire.store import rights
from homewire.store.database import PAGE, Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.permissions import GRANT_TO_USER, REVOKE_FROM_USER

USER_GRANTS: Final = 400
"""Rights that are granted to one user themselves; with those of their groups there are some thousands."""
_OF_HOMES: Final = tuple(f"{kind}:" for kind in RightKind if kind.noun == "home")


class Permissions:
    """The rights of a project's users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, project_id: int, user_id: int, right: Right) -> None:
        """Give a right to a user; once more changes nothing.

        Raises UnknownRecord (project, user, home, device), Conflict (TOO_MANY_PERMISSIONS).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            GRANT_TO_USER,
            slot,
            [
                slot.user(user_id), slot.user_grants(user_id), slot.user_rights(user_id),
                rights.target(slot, right),
            ],
            [str(right), right.kind.noun, USER_GRANTS],
        )  # fmt: skip
        require_ok(answer, project=project_id, user=user_id, home=right.subject, device=right.subject)

    async def revoke(self, project_id: int, user_id: int, right: Right) -> None:
        """Take a grant back; who has the right by a group, too, keeps it.

        Raises UnknownRecord (project; permission, for what was not granted to this user).
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            REVOKE_FROM_USER,
            slot,
            [
                slot.user_grants(user_id), slot.user_rights(user_id),
                slot.device_places, slot.entity_places,
            ],
            [str(right), user_id],
        )  # fmt: skip
        require_ok(answer, project=project_id, permission=right)

    async def of_user(self, project_id: int, user_id: int) -> list[HeldRight]:
        """The rights of a user by their texts, and where each is from."""
        slot = ProjectSlot(project_id)
        direct, groups = await asyncio.gather(
            self._database.read("ZRANGE", slot.user_grants(user_id), 0, -1),
            self._database.read("ZRANGE", slot.user_groups(user_id), 0, -1),
        )
        by_groups = await asyncio.gather(
            *(self._database.read("ZRANGE", slot.group_rights(int(each)), 0, -1) for each in groups)
        )
        sources: dict[bytes, list[int]] = {text: [] for text in direct}
        for group_id, texts in zip(groups, by_groups, strict=True):
            for text in texts:
                sources.setdefault(text, []).append(int(group_id))
        granted = frozenset(direct)
        return [
            HeldRight(rights.stored(text), text in granted, tuple(sources[text])) for text in sorted(sources)
        ]

    async def held(self, project_id: int, user_id: int, texts: Collection[str]) -> set[str]:
        """Those of these rights that the user has, to what still exists; of devices and entities ask where
        they are."""
        slot, wanted, found = ProjectSlot(project_id), sorted(set(texts)), set[str]()
        for start in range(0, len(wanted), PAGE):
            page = wanted[start : start + PAGE]
            reply = await self._database.read("HMGET", slot.user_rights(user_id), *page)
            found.update(text for text, sources in zip(page, reply, strict=True) if sources is not None)
        # Of a deleted home rights are left, until they are revoked or their holder goes.
        homes = {text: int(text.rpartition(":")[2]) for text in found if text.startswith(_OF_HOMES)}
        existing = await self._database.present(slot.homes, list(homes.values()))
        return found.difference(text for text, home_id in homes.items() if home_id not in existing)
