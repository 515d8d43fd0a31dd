"""Housekeeping: what a deletion left behind because its process died is swept by any node, within seconds.

A deletion that does not fit in one script leaves a tombstone (`tombstone` in `scripts/script.py`) in an index
of its project, and whoever deletes sweeps behind it. Before such a script runs, `Database.change` notes the
project in a sorted set of the deployment, with the time from which on somebody should look. Nodes look into
that set once a second, and take what is due, for a while: so a node that dies at it, too, is followed by
another. Sweeping the same thing twice at once is harmless.

Once in ten minutes one node looks into all projects, for what stands in no note, and for charges that are
over (`accounting.lua`).
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
from homewire.store.script import FINISHED, TAKE

INTERVAL_S: Final = 1.0
"""Between two looks at what is due."""
TAKEN_MS: Final = 30_000
"""How long a node has a project to itself. One that it still sweeps then it takes anew."""
AT_ONCE: Final = 4
"""Projects that a node sweeps at once: a large one keeps the others waiting only so much."""
PATROL_MS: Final = 600_000
"""Between two looks into all projects."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CleanupJob:
    """One kind of leftovers."""

    index: Callable[[ProjectSlot], str]
    """The key of the tombstones."""
    sweep: Callable[[int], Awaitable[None]]
    """Sweep all of them in a project, and remove each as its last step. Resumable, repeatable, in pages."""


class Housekeeping:
    """Finishes what others began. `chores` are done in their order: one may leave work for the next."""

    def __init__(
        self, database: Database, projects: Projects, usage: Usage, chores: Sequence[CleanupJob]
    ) -> None:
        self._database = database
        self._projects = projects
        self._usage = usage
        self._chores = chores
        self._busy: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look and sweep until cancelled. A Redis that is away is waited for."""
        try:
            while not is_cancelling():
                try:
                    await self._begin_what_is_due()
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

    async def _begin_what_is_due(self) -> None:
        free = AT_ONCE - len(self._busy)
        if free <= 0:
            return
        until, *taken = await self._database.ask(TAKE, [UNFINISHED], [free, TAKEN_MS])
        for project_id in ids_among(taken):
            if project_id not in self._busy:
                self._busy[project_id] = asyncio.create_task(self._finish(project_id, int(until)))

    async def _finish(self, project_id: int, until: int) -> None:
        """Sweep one project; it stays noted when that fails, and is looked at again."""
        try:
            if project_id in await self._database.present(DELETED_PROJECTS, [project_id]):
                await self._projects.sweep(project_id)
            else:
                for chore in self._chores:
                    await chore.sweep(project_id)
            await self._database.change_outside(FINISHED, [UNFINISHED], [project_id, until])
        except Exception as error:
            # Also of a record that nobody foresaw: it must not take down one node after the other.
            _log.warning("housekeeping.failed", project=project_id, error=str(error) or type(error).__name__)
        finally:
            del self._busy[project_id]

    async def _patrol(self) -> None:
        """Note every project that has leftovers, unless a node did so not long ago."""
        if not await self._database.write("SET", PATROLLED, 1, "NX", "PX", PATROL_MS):
            return
        async for page in self._database.index_pages(DELETED_PROJECTS):
            for project_id in page:
                await self._database.note_unfinished(project_id)
        async for page in self._database.index_pages(PROJECTS):
            for project_id in page:
                # One by one: each lies in another slot.
                slot = ProjectSlot(project_id)
                if int(await self._database.read("EXISTS", *(chore.index(slot) for chore in self._chores))):
                    await self._database.note_unfinished(project_id)
                # Of a project that stores nothing new no charge gives these back.
                with suppress(UnknownRecord):
                    await self._usage.forget_expired(project_id)
