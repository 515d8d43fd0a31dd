"""The use of sessions, which extends them: buffered by requests, written at most once a minute for each
session."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.tokens import key_tag
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.store.database import PAGE, Database
from homewire.store.keys import ENDED_SESSION_TTL_MS, ProjectSlot
from homewire.store.script import changing, lua

TOUCH_SESSIONS: Final = changing(lua(__package__, "touch_sessions"), charges=True)
MAX_TOUCHED: Final = 50
"""Sessions of one script. Each is three elements and up to seven commands; 50 of them block Redis for some 2
ms."""
NOTE_INTERVAL_MS: Final = 60_000
"""Minimum time between two notes of a session's use, of all nodes."""
NOTES: Final = 4
"""Minimum number of notes in the time without use until expiry. So a session of less than 4 minutes is noted
more often than once a minute."""


class SessionUse(NamedTuple):
    """A session was used at a time, in ms since 1970."""

    session_id: str
    user_id: int
    device_id: int
    """Of a node session, whose `user_id` is 0."""
    key_hash: str
    used_ms: int


class SessionDeadline(NamedTuple):
    """When a session expires."""

    expires_ms: int
    """Unless it is used before that."""
    ends_ms: int
    """Whatever happens; 0: it has no such end."""


class KeyReference(NamedTuple):
    """A key: its user or device, and the first 8 bytes of its hash."""

    user_id: int
    device_id: int
    """Of a node session, whose `user_id` is 0."""
    key_tag: int


class LiveSession(NamedTuple):
    """A live session, found by the tag of its key."""

    session_id: str
    key_hash: str
    last_access_ms: int
    slides_ms: int
    deadline: SessionDeadline

    def is_due(self, now: int) -> bool:
        """Whether a use at this time would be noted."""
        return now - self.last_access_ms >= note_interval_ms(self.slides_ms)


def note_interval_ms(slides_ms: int) -> int:
    """Time (ms) between two notes of a session that expires after `slides_ms` without use."""
    return min(NOTE_INTERVAL_MS, slides_ms // NOTES)


class SessionActivity:
    """The repository of the use of sessions: notes uses, and reads the sessions of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def touch(self, project_id: int, uses: Sequence[SessionUse]) -> list[SessionDeadline | None]:
        """Note these uses, at most MAX_TOUCHED, which extends the sessions.

        Returns the deadline of each session; None for one that is over, or of a deleted project. A use within
        a minute of the last note changes nothing. Raises Unavailable, NotConfirmed.
        """
        slot = ProjectSlot(project_id)
        names = [
            name
            for use in uses
            for name in (
                slot.session(use.session_id),
                slot.key(use.key_hash),
                _index(slot, use.user_id, use.device_id),
            )
        ]
        arguments = [value for use in uses for value in (use.session_id, use.key_hash, use.used_ms)]
        answer = await self._database.change(
            TOUCH_SESSIONS, slot, names, [NOTE_INTERVAL_MS, NOTES, ENDED_SESSION_TTL_MS, *arguments]
        )
        if answer[0] == "unknown":
            return [None] * len(uses)
        return [_deadline(*words) for words in zip(answer[1::2], answer[2::2], strict=True)]

    async def of_keys(
        self, project_id: int, keys: Collection[KeyReference]
    ) -> dict[KeyReference, LiveSession]:
        """The live sessions of keys; without those that are over. Raises Unavailable.

        In two round trips, whatever the number of keys: there is no index by tag, for few users have more
        than a handful of sessions, and none more than `sessions.MAX_SESSIONS`.
        """
        slot, now = ProjectSlot(project_id), self._database.now_ms()
        holders = sorted({(key.user_id, key.device_id) for key in keys})
        replies = await self._database.read_together(
            *(("ZRANGEBYSCORE", _index(slot, *holder), f"({now}", "+inf") for holder in holders)
        )
        live = [
            (holder, session_id.decode())
            for holder, reply in zip(holders, replies, strict=True)
            for session_id in reply
        ]
        found: dict[KeyReference, LiveSession] = {}
        for start in range(0, len(live), PAGE):
            page = live[start : start + PAGE]
            sessions = await self._read(slot, [session_id for _, session_id in page])
            for (holder, _), session in zip(page, sessions, strict=True):
                if session is not None:
                    found[KeyReference(*holder, key_tag(session.key_hash))] = session
        return {key: session for key, session in found.items() if key in keys}

    async def _read(self, slot: ProjectSlot, ids: Sequence[str]) -> list[LiveSession | None]:
        fields = ("key", "closed", "last_access", "slides", "expires", "ends")
        records = await self._database.read_together(
            *(("HMGET", slot.session(session_id), *fields) for session_id in ids)
        )
        return [_found(session_id, record) for session_id, record in zip(ids, records, strict=True)]


def _index(slot: ProjectSlot, user_id: int, device_id: int) -> str:
    return slot.user_sessions(user_id) if user_id else slot.device_sessions(device_id)


def _deadline(expires: str, ends: str) -> SessionDeadline | None:
    return SessionDeadline(int(expires), int(ends)) if expires != "0" else None


def _found(session_id: str, record: Sequence[bytes | None]) -> LiveSession | None:
    key, closed, *times = record
    if key is None or closed != b"0":
        return None
    last_access, slides, expires, ends = (int(each or 0) for each in times)
    return LiveSession(session_id, key.decode(), last_access, slides, SessionDeadline(expires, ends))


MAX_WAITING: Final = 10_000
"""Uses that wait to be written. More are dropped and counted: the session's next request is noted instead."""
MAX_REMEMBERED: Final = 50_000
"""Noted keys that are remembered, in each of two generations. A key that is forgotten too early is noted
again, and the script ignores that note."""

ProjectUses: TypeAlias = tuple[int, list[SessionUse]]
"""The uses of one project that one script writes."""


class ActivityBuffer:
    """Collects uses of sessions. A request costs a look-up in a dict, and an entry once a minute."""

    def __init__(self, pause_ms: int, clock: Clock = MACHINE_CLOCK) -> None:
        """A use is noted if the last note of the session on this node is at least `pause_ms` old."""
        self.pending = asyncio.Event()
        """Set while a use waits."""
        self._pause_ms = pause_ms
        self._now_ms = clock.now_ms
        self._turns_at = 0
        self._noted: dict[int, int] = {}
        """Key tag → time (ms) of its note. It becomes `_before` once in `pause_ms`, so that both together
        have all notes that still count."""
        self._before: dict[int, int] = {}
        self._waiting: dict[int, dict[str, SessionUse]] = {}
        self._count = 0
        """Number of waiting uses."""
        self._written = self._dropped = 0

    def note(self, principal: Principal, key_hash: str) -> None:
        """Note the use of a key. Keys without a session are ignored."""
        if not principal.session_id:
            return
        now = self._now_ms()
        last = self._noted.get(principal.key_tag) or self._before.get(principal.key_tag, 0)
        if now - last < self._pause_ms:
            return
        if self._count >= MAX_WAITING:
            self._dropped += 1
            return
        self._remember(principal.key_tag, now)
        is_user = principal.kind is PrincipalKind.USER
        user_id, device_id = (principal.id, 0) if is_user else (0, principal.id)
        use = SessionUse(principal.session_id, user_id, device_id, key_hash, now)
        self._wait(principal.project_id, [use])

    def take(self, batches: int) -> list[ProjectUses]:
        """Remove and return the next uses of at most `batches` projects. The projects take turns."""
        taken: list[ProjectUses] = []
        for project_id in list(self._waiting)[:batches]:
            uses = self._waiting.pop(project_id)
            some = [uses.pop(session_id) for session_id in list(uses)[:MAX_TOUCHED]]
            if uses:
                self._waiting[project_id] = uses
            self._count -= len(some)
            taken.append((project_id, some))
        if not self._waiting:
            self.pending.clear()
        return taken

    def put_back(self, batches: Iterable[ProjectUses]) -> None:
        """Return batches that could not be written, without sessions that were used since."""
        for project_id, uses in batches:
            newer = self._waiting.get(project_id, {})
            self._wait(project_id, [use for use in uses if use.session_id not in newer])

    def written(self, count: int) -> None:
        """Count uses that were written."""
        self._written += count

    def waiting(self) -> int:
        """Number of uses that wait to be written."""
        return self._count

    def metrics(self) -> dict[str, int]:
        """For the metrics."""
        return {
            "session_uses_waiting": self.waiting(),
            "session_uses_written": self._written,
            "session_uses_dropped": self._dropped,
        }

    def _wait(self, project_id: int, uses: list[SessionUse]) -> None:
        waiting = self._waiting.setdefault(project_id, {})
        self._count -= len(waiting)
        waiting.update((use.session_id, use) for use in uses)
        self._count += len(waiting)
        self.pending.set()

    def _remember(self, key_tag: int, now: int) -> None:
        if now >= self._turns_at or len(self._noted) >= MAX_REMEMBERED:
            self._before, self._noted = self._noted, {}
            self._turns_at = now + self._pause_ms
        self._noted[key_tag] = now
