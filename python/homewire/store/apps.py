"""Apps: what users of a project sign in with."""

from __future__ import annotations

import builtins

from homewire.store import checks
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.projects import CREATE_APP, DELETE_APP


class Apps:
    """The apps of a project, known by an id that people choose."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, app_id: str) -> None:
        """Register an app. Raises Conflict if the project has it, UnknownRecord without the project."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            CREATE_APP,
            slot,
            [slot.apps],
            [checks.app_id(app_id), self._database.now_ms()],
        )
        require_ok(answer, project=project_id)

    async def delete(self, project_id: int, app_id: str) -> None:
        """Delete an app: no session is opened with it any more. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(DELETE_APP, slot, [slot.apps], [checks.app_id(app_id)])
        require_ok(answer, project=project_id, app=app_id)

    async def list(self, project_id: int) -> builtins.list[tuple[str, int]]:
        """The apps by id, each with the time of its creation in ms."""
        found = dict[str, int]()
        async for fields, _ in self._database.hash_pages(ProjectSlot(project_id).apps):
            found.update((app_id.decode(), int(created)) for app_id, created in fields.items())
        return sorted(found.items())

    async def exists(self, project_id: int, app_id: str) -> bool:
        """Whether the project has the app."""
        checks.text("appId", app_id)
        return bool(await self._database.read("HEXISTS", ProjectSlot(project_id).apps, app_id))
