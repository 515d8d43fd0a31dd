"""Project keys: keys that speak for the project itself, with permissions."""

from __future__ import annotations

from collections.abc import Iterable

from homewire.errors import UnknownRecord
from homewire.model import Permission, ProjectKey
from homewire.store import checks, tokens
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.rotation import rotate
from homewire.store.scripts.projects import CREATE_PROJECT_KEY, REVOKE_PROJECT_KEY


class ProjectKeys:
    """The project keys of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, project_id: int, name: str, permissions: Iterable[Permission]
    ) -> tuple[ProjectKey, str]:
        """A new key and its token, which is shown this once. Raises UnknownRecord without the project."""
        checks.name("name", name)
        granted = frozenset(map(Permission, permissions))
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
        raise outrun("project key")

    async def rotate(self, project_id: int, key_id: int) -> str:
        """Replace the token, shown this once; the old one is dead when this returns. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        token = await rotate(self._database, slot, slot.project_key(key_id), project_key=key_id)
        if token is None:
            raise UnknownRecord("project key", key_id)
        return token


def _project_key(project_id: int, key_id: int, record: dict[str, str]) -> ProjectKey:
    granted = frozenset(Permission(word) for word in record["permissions"].split())
    return ProjectKey(key_id, project_id, record["name"], granted, int(record["created"]))
