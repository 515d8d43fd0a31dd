"""Replacing the token of a record that has exactly one: a device, a project key."""

from __future__ import annotations

from homewire.store import tokens
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.projects import ROTATE_KEY


async def rotate(
    database: Database, slot: ProjectSlot, record: str, *, device: int = 0, project_key: int = 0
) -> str | None:
    """A new token for the record of that name, which is that of a device or a project key.

    The old one dies in the same step. None: no such record.
    """
    for _ in range(ATTEMPTS):
        old = (await database.read_hash(record)).get("key")
        if old is None:
            return None
        token, reference = tokens.mint(slot.project_id)
        answer = await database.change(
            ROTATE_KEY,
            slot,
            [record, slot.key(old), slot.key(reference.hash)],
            [old, reference.hash, device, project_key],
        )
        if answer[0] != "moved":
            require_ok(answer, project=slot.project_id)
            return token
    raise outrun("key")
