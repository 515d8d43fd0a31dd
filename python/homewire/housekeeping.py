"""Housekeeping: any node finishes, within seconds, deletions whose process died.

A deletion that does not fit in one script leaves a tombstone (`store/tombstone.lua`) in an index of its
project, and its process sweeps the rest. Before such a script runs, `Database.change` notes the project in a
sorted set of the deployment, with the time from which on it is to be checked. Nodes check that set every
second, and take due projects for some time: if such a node dies, too, another one takes over. To sweep twice
at once does no harm.

Every ten minutes one node checks all projects, for tombstones without a note and for charges that have
expired (`store/accounting.lua`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from homewire.concurrency import is_cancelling
from homewire.errors import Unavailable, UnknownRecord
from homewire.projects.store import Projects
from homewire.projects.usage import Usage
from homewire.store.database import Database
from homewire.store.keys import DELETED_PROJECTS, PATROLLED, PROJECTS, UNFINISHED, ProjectSlot, ids_among
from homewire.store.script import FINISH_UNFINISHED, TAKE_UNFINISHED

INTERVAL_S: Final = 1.0
"""Between two checks of due projects."""
CLAIM_MS: Final = 30_000
"""How long a node has a project for itself. It takes a project again that it still sweeps."""
CONCURRENCY: Final = 4
"""Projects that a node sweeps at once, so that a large one does not delay the others."""
PATROL_MS: Final = 600_000
"""Between two checks of all projects."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CleanupJob:
    """Cleans up after one kind of deletion."""

    index: Callable[[ProjectSlot], str]
    """The key of its tombstones."""
    sweep: Callable[[int], Awaitable[None]]
    """Sweep all tombstones of a project, in pages, each last. Can be interrupted and repeated."""


class Housekeeping:
    """Finishes interrupted deletions. Jobs run in their order: one may leave tombstones for the next."""

    def __init__(
        self, database: Database, projects: Projects, usage: Usage, jobs: Sequence[CleanupJob]
    ) -> None:
        self._database = database
        self._projects = projects
        self._usage = usage
        self._jobs = jobs
        self._busy: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Check and sweep until cancelled, also after times without Redis."""
        try:
            while not is_cancelling():
                try:
                    await self._take_due()
                    await self._patrol()
                except Unavailable as error:
                    _log.warning("housekeeping.failed", error=str(error))
                if not is_cancelling():
                    await asyncio.sleep(INTERVAL_S)
        finally:
            unfinished = list(self._busy.values())
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _take_due(self) -> None:
        free = CONCURRENCY - len(self._busy)
        if free <= 0:
            return
        until, *taken = await self._database.ask(TAKE_UNFINISHED, [UNFINISHED], [free, CLAIM_MS])
        for project_id in ids_among(taken):
            if project_id not in self._busy:
                self._busy[project_id] = asyncio.create_task(self._finish(project_id, int(until)))

    async def _finish(self, project_id: int, until: int) -> None:
        """Sweep one project. After a failure it stays noted and is swept again."""
        try:
            if project_id in await self._database.present(DELETED_PROJECTS, [project_id]):
                await self._projects.sweep(project_id)
            else:
                for job in self._jobs:
                    await job.sweep(project_id)
            await self._database.change_outside(FINISH_UNFINISHED, [UNFINISHED], [project_id, until])
        except Exception as error:
            # Also after an unexpected error: one bad record must not stop one node after the other.
            _log.warning("housekeeping.failed", project=project_id, error=str(error) or type(error).__name__)
        finally:
            del self._busy[project_id]

    async def _patrol(self) -> None:
        """Note all projects with tombstones, unless a node did so lately."""
        if not await self._database.write("SET", PATROLLED, 1, "NX", "PX", PATROL_MS):
            return
        async for page in self._database.index_pages(DELETED_PROJECTS):
            for project_id in page:
                await self._database.note_unfinished(project_id)
        async for page in self._database.index_pages(PROJECTS):
            for project_id in page:
                # One by one: each is in another slot.
                slot = ProjectSlot(project_id)
                if int(await self._database.read("EXISTS", *(job.index(slot) for job in self._jobs))):
                    await self._database.note_unfinished(project_id)
                # A project that stores nothing new releases expired charges only here.
                with suppress(UnknownRecord):
                    await self._usage.forget_expired(project_id)
