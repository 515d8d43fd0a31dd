"""Replacing the token of a record that has exactly one: a device, a project key."""

from __future__ import annotations

from homewire.store import tokens
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts import ROTATE_KEY


async def rotate(database: Database, project_id: int, record: str) -> str | None:
    """A new token for the record of that name; the old one dies in the same step. None: no such record."""
    slot = ProjectSlot(project_id)
    for _ in range(ATTEMPTS):
        old = (await database.read_hash(record)).get("key")
        if old is None:
            return None
        token, reference = tokens.mint(project_id)
        answer = await database.change(
            ROTATE_KEY,
            [slot.project, slot.outbox, record, slot.key(old), slot.key(reference.hash)],
            [old, reference.hash],
        )
        if answer[0] != "moved":
            require_ok(answer, project=project_id)
            return token
    raise outrun("key")
