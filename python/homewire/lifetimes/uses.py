"""Which sessions were used: noted by every request, to be written at most once a minute for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from homewire.model import Principal, PrincipalKind
from homewire.store.database import wall_clock_ms
from homewire.store.session_uses import MOST_TOUCHED, Use

MOST_WAITING: Final = 10_000
"""Uses that wait to be written. More are dropped, and counted: the session's next request notes it again."""
MOST_REMEMBERED: Final = 50_000
"""Keys of which it is remembered that they were noted, in each of two generations. Whoever is forgotten too
early is noted again, and the script that writes it sees that it is too early."""

Batch: TypeAlias = tuple[int, list[Use]]
"""Uses in one project, as many as one script takes."""


class Uses:
    """What a request does here is a look into a dict, and once a minute an entry for the writer."""

    def __init__(self, pause_ms: int, clock: Callable[[], int] = wall_clock_ms) -> None:
        """A session's use is noted when the last one was, here, at least `pause_ms` ago."""
        self.to_write: Final = asyncio.Event()
        """Set while something waits."""
        self._pause_ms = pause_ms
        self._clock = clock
        self._turns_at = 0
        self._noted: dict[int, int] = {}
        """Key tag → when its use was noted. Turned once in a pause, so that `_before` has all older ones that
        still count."""
        self._before: dict[int, int] = {}
        self._waiting: dict[int, dict[str, Use]] = {}
        self._count = 0
        """Of all of them."""
        self._written = self._dropped = 0

    def note(self, principal: Principal, key_hash: str) -> None:
        """A key was used. Only keys that are sessions count."""
        if not principal.session_id:
            return
        now = self._clock()
        last = self._noted.get(principal.key_tag) or self._before.get(principal.key_tag, 0)
        if now - last < self._pause_ms:
            return
        if self._count >= MOST_WAITING:
            self._dropped += 1
            return
        self._remember(principal.key_tag, now)
        is_user = principal.kind is PrincipalKind.USER
        user_id, device_id = (principal.id, 0) if is_user else (0, principal.id)
        use = Use(principal.session_id, user_id, device_id, key_hash, now)
        self._wait(principal.project_id, [use])

    def take(self, batches: int) -> list[Batch]:
        """Of at most so many projects what is to be written next; it does not wait any more.

        Projects take turns: who had one stands behind the others.
        """
        taken: list[Batch] = []
        for project_id in list(self._waiting)[:batches]:
            uses = self._waiting.pop(project_id)
            some = [uses.pop(session_id) for session_id in list(uses)[:MOST_TOUCHED]]
            if uses:
                self._waiting[project_id] = uses
            self._count -= len(some)
            taken.append((project_id, some))
        if not self._waiting:
            self.to_write.clear()
        return taken

    def put_back(self, project_id: int, uses: list[Use]) -> None:
        """What was taken and could not be written, unless the session was used since."""
        newer = self._waiting.get(project_id, {})
        self._wait(project_id, [use for use in uses if use.session_id not in newer])

    def written(self, count: int) -> None:
        """So many of those taken were written."""
        self._written += count

    def waiting(self) -> int:
        """How many uses are still to be written."""
        return self._count

    def figures(self) -> dict[str, int]:
        """For the metrics."""
        return {
            "session_uses_waiting": self.waiting(),
            "session_uses_written": self._written,
            "session_uses_dropped": self._dropped,
        }

    def _wait(self, project_id: int, uses: list[Use]) -> None:
        waiting = self._waiting.setdefault(project_id, {})
        self._count -= len(waiting)
        waiting.update((use.session_id, use) for use in uses)
        self._count += len(waiting)
        self.to_write.set()

    def _remember(self, key_tag: int, now: int) -> None:
        if now >= self._turns_at or len(self._noted) >= MOST_REMEMBERED:
            self._before, self._noted = self._noted, {}
            self._turns_at = now + self._pause_ms
        self._noted[key_tag] = now
