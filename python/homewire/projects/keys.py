"""Project keys: keys that speak for the project itself, with permissions.

Replacing the token of a record that has exactly one: a device, a project key.
"""

from __future__ import annotations

from collections.abc import Iterable

from homewire.auth import tokens
from homewire.errors import UnknownRecord
from homewire.projects.models import KeyScope, ProjectKey
from homewire.projects.scripts import CREATE_PROJECT_KEY, REVOKE_PROJECT_KEY, ROTATE_KEY
from homewire.sessions.store import Sessions
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot


class ProjectKeys:
    """The project keys of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, project_id: int, name: str, permissions: Iterable[KeyScope]
    ) -> tuple[ProjectKey, str]:
        """A new key and its token, which is shown this once. Raises UnknownRecord without the project."""
        checks.name("name", name)
        granted = frozenset(map(KeyScope, permissions))
        key_id, now = await self._database.new_id(), self._database.now_ms()
        slot, (token, reference) = ProjectSlot(project_id), tokens.mint(project_id)
        answer = await self._database.change(
            CREATE_PROJECT_KEY,
            slot,
            [slot.project_key(key_id), slot.project_keys, slot.key(reference.hash)],
            [key_id, reference.hash, name, " ".join(sorted(granted)), now],
        )
        require_ok(answer, project=project_id)
        return ProjectKey(key_id, project_id, name, granted, now), token

    async def list(self, project_id: int) -> list[ProjectKey]:
        """All keys of the project, by id, without their tokens."""
        slot = ProjectSlot(project_id)
        found: list[ProjectKey] = []
        async for page in self._database.index_pages(slot.project_keys):
            records = await self._database.read_hashes([slot.project_key(key_id) for key_id in page])
            found += [
                _project_key(project_id, key_id, record)
                for key_id, record in zip(page, records, strict=True)
                if record
            ]
        return found

    async def revoke(self, project_id: int, key_id: int) -> None:
        """End a key: it is dead when this returns. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        for _ in range(ATTEMPTS):
            token_hash = (await self._database.read_hash(slot.project_key(key_id))).get("key")
            if token_hash is None:
                raise UnknownRecord("project key", key_id)
            answer = await self._database.change(
                REVOKE_PROJECT_KEY,
                slot,
                [slot.project_key(key_id), slot.project_keys, slot.key(token_hash)],
                [key_id, token_hash],
            )
            if answer[0] != "moved":
                return require_ok(answer, project=project_id)
        raise retries_exhausted("project key")

    async def rotate(self, project_id: int, key_id: int) -> str:
        """Replace the token, shown this once; the old one is dead when this returns. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        token = await rotate(self._database, slot, slot.project_key(key_id), project_key=key_id)
        if token is None:
            raise UnknownRecord("project key", key_id)
        return token


def _project_key(project_id: int, key_id: int, record: dict[str, str]) -> ProjectKey:
    granted = frozenset(KeyScope(word) for word in record["permissions"].split())
    return ProjectKey(key_id, project_id, record["name"], granted, int(record["created"]))


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
    raise retries_exhausted("key")
