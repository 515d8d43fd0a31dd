"""Replacing the token of a record that has exactly one: a device, a project key."""

from __future__ import annotations

from homewire.store import tokens
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.projects import ROTATE_KEY
from homewire.store.sessions import Sessions


async def rotate(
    database: Database,
    slot: ProjectSlot,
    record: str,
    *,
    device: int = 0,
    project_key: int = 0,
    sessions: Sessions | None = None,
) -> str | None:
    """A new token for the record of that name, which is that of a device or a project key.

    The old one dies in the same step; of a device, its `sessions` end before. None: no such record.
    """
    index = [slot.device_sessions(device)] if device else []
    for _ in range(ATTEMPTS):
        old = (await database.read_hash(record)).get("key")
        if old is None:
            return None
        token, reference = tokens.mint(slot.project_id)
        answer = await database.change(
            ROTATE_KEY,
            slot,
            [record, slot.key(old), slot.key(reference.hash), *index],
            [old, reference.hash, device, project_key],
        )
        if answer[0] == "in_session" and sessions is not None:
            await sessions.end_all_of_device(slot.project_id, device)
        elif answer[0] != "moved":
            require_ok(answer, project=slot.project_id)
            return token
    raise outrun("key")
