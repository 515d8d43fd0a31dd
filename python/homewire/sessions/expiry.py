"""Open sockets: each uses its session, and none outlives it.

Writes down which sessions were used: many in one step, behind the requests and never in their way.

Sessions of a node: their uses and their sockets, put together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import structlog

from homewire.auth.models import Principal
from homewire.auth.tokens import key_tag
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.concurrency import WriteBehind, is_cancelling, wait_debounced
from homewire.errors import Unavailable
from homewire.realtime.close_codes import KEY_ENDED, TRY_AGAIN, reason
from homewire.sessions.activity import (
    MAX_TOUCHED,
    NOTES,
    ActivityBuffer,
    KeyReference,
    LiveSession,
    ProjectUses,
    SessionActivity,
    SessionDeadline,
    SessionUse,
    note_interval_ms,
)
from homewire.sessions.deadlines import ActiveKeys, ActiveKeySource, Deadlines, SocketKey

CHUNK: Final = 100
"""Connections that are checked together: two round trips to read their sessions, one to note their use."""
CHECK_INTERVAL_S: Final = 240.0
"""Time between the beginnings of two checks of all open connections."""
MAX_PAUSE_S: Final = 1.0
MIN_PAUSE_S: Final = 0.02
"""Pause between two chunks: it bounds the load of a check on Redis, however many connections there are."""
SPREAD: Final = 0.7
"""The part of CHECK_INTERVAL_S over which a check is spread."""
TICK_S: Final = 0.1
"""Maximum delay until an expiry is noticed."""
CLOCK_CHECK_S: Final = 1.0
"""Interval of reading the clock while no deadline is due: the clock may be set."""
DECISION_TIMEOUT_S: Final = 0.5
"""Time limit of reading from Redis whether another node noted a use of an expired session."""

_log = structlog.get_logger(__name__)


class SocketCore(ActiveKeySource, Protocol):
    """The part of the core that closes connections."""

    def end_key(self, project: int, user: int, key_tag: int, /) -> None:
        """Close every connection of a user's key that ended."""

    def close(self, id: int, code: int, reason: str, /) -> None:
        """Close one connection."""

    def stats(self) -> dict[str, int]:
        """The metrics of the core; `connections` is one."""
        ...


class SocketExpiry:
    """Closes the connections of this node whose sessions are over. An open connection is a use of its
    session."""

    def __init__(
        self,
        core: SocketCore,
        keys: ActiveKeys,
        sessions: SessionActivity,
        deadlines: Deadlines,
        check_interval_s: float = CHECK_INTERVAL_S,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        self._core = core
        self._keys = keys
        self._sessions = sessions
        self._deadlines = deadlines
        self._check_interval_s = check_interval_s
        self._clock = clock
        self._checks = self._expired = self._undecided = 0

    def opened(self, connection_id: int, principal: Principal) -> None:
        """A connection was reserved: it will be opened, or reported as closed."""
        if principal.session_id:
            key = SocketKey.of(principal)
            self._deadlines.observe(key, SessionDeadline(principal.expires_ms, principal.ends_ms))
            if key.device_id or key in self._deadlines:
                self._keys.remember(connection_id, key)

    async def run(self) -> None:
        """Check open connections until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_repeatedly())
            group.create_task(self._watch_deadlines())

    def metrics(self) -> dict[str, int]:
        """For the metrics."""
        return {
            "session_deadlines": len(self._deadlines),
            "session_checks": self._checks,
            "sessions_expired": self._expired,
            "sessions_closed_unchecked": self._undecided,
        }

    async def _check_repeatedly(self) -> None:
        whole = True
        while not is_cancelling():
            began = self._clock.monotonic()
            if whole:
                self._deadlines.begin_generation()
            try:
                await self._check_all()
                whole, rest = True, self._check_interval_s - (self._clock.monotonic() - began)
                self._checks += 1
            except (Unavailable, OSError) as error:
                if whole:
                    _log.info("sessions.check_interrupted", error=type(error).__name__)
                whole, rest = False, min(RETRY_S, self._check_interval_s)
            if not is_cancelling():
                await self._clock.sleep(max(rest, MIN_PAUSE_S))

    async def _check_all(self) -> None:
        """Check every key with connections once, spread over the interval. Raises Unavailable."""
        await self._check(self._keys.device_keys())
        chunks = self._core.stats()["connections"] / CHUNK + 1
        pause = self._check_interval_s * SPREAD / chunks
        cursor = 0
        while not is_cancelling():
            cursor, keys = await self._keys.page(self._core, cursor, CHUNK)
            await self._check(keys)
            if cursor == 0:
                return
            # A page may be empty where there were more connections before.
            if keys:
                await self._clock.sleep(min(max(pause, MIN_PAUSE_S), MAX_PAUSE_S))

    async def _check(self, keys: Iterable[SocketKey]) -> None:
        """Note a use of the session of each key; close the keys whose session is over. Raises Unavailable."""
        projects = defaultdict[int, list[SocketKey]](list)
        for key in keys:
            projects[key.project_id].append(key)
        # Concurrently, so that many small projects share their round trips.
        await asyncio.gather(*(self._check_project(*each) for each in projects.items()))

    async def _check_project(self, project_id: int, keys: Sequence[SocketKey]) -> None:
        found = await self._sessions.of_keys(project_id, {_reference(key) for key in keys})
        deadlines_found = await self._used(project_id, found)
        for key in keys:
            self._decide(key, deadlines_found.get(_reference(key)))

    async def _used(
        self, project_id: int, found: dict[KeyReference, LiveSession]
    ) -> dict[KeyReference, SessionDeadline | None]:
        """Note the use of sessions that were not used lately. Returns all deadlines. Raises Unavailable."""
        now = self._clock.now_ms()
        deadlines_found: dict[KeyReference, SessionDeadline | None] = {
            key: each.deadline for key, each in found.items()
        }
        idle = [
            (key, SessionUse(each.session_id, key.user_id, key.device_id, each.key_hash, now))
            for key, each in found.items()
            if each.is_due(now)
        ]
        for start in range(0, len(idle), MAX_TOUCHED):
            keys, uses = zip(*idle[start : start + MAX_TOUCHED], strict=True)
            deadlines_found.update(zip(keys, await self._sessions.touch(project_id, uses), strict=True))
        return deadlines_found

    def _decide(self, key: SocketKey, deadline: SessionDeadline | None) -> None:
        if deadline is None or 0 < deadline.expires_ms <= self._clock.now_ms():
            self._end(key)
        else:
            self._deadlines.observe(key, deadline)

    async def _watch_deadlines(self) -> None:
        while not is_cancelling():
            late = self._deadlines.due()
            # No use extends a session beyond its absolute end.
            now = self._clock.now_ms()
            doubtful = []
            for key, deadline in late:
                if 0 < deadline.ends_ms <= now:
                    self._end(key)
                else:
                    doubtful.append(key)
            if doubtful:
                await self._decide_late(doubtful)
            await wait_debounced(self._clock, self._deadlines.sooner, TICK_S, self._wait_s())

    def _wait_s(self) -> float:
        next_ms = self._deadlines.next_ms()
        due_s = CLOCK_CHECK_S if next_ms is None else (next_ms - self._clock.now_ms()) / 1000
        return min(max(due_s, TICK_S), CLOCK_CHECK_S)

    async def _decide_late(self, keys: Sequence[SocketKey]) -> None:
        """Check keys whose sessions have expired, unless they were used through another node."""
        # Concurrently: no chunk waits for another one.
        chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]
        await asyncio.gather(*map(self._decide_some, chunks))

    async def _decide_some(self, keys: Sequence[SocketKey]) -> None:
        try:
            async with asyncio.timeout(DECISION_TIMEOUT_S):
                await self._check(keys)
        except (Unavailable, OSError, TimeoutError):
            for key in keys:
                self._give_up(key)

    def _end(self, key: SocketKey) -> None:
        """Close the connections of a key whose session is over."""
        self._expired += 1
        self._close(key, KEY_ENDED)
        if key.user_id:
            self._core.end_key(key.project_id, key.user_id, key.key_tag)

    def _give_up(self, key: SocketKey) -> None:
        """Close the connections of a key whose session could not be read in time."""
        self._undecided += 1
        self._close(key, TRY_AGAIN)

    def _close(self, key: SocketKey, code: int) -> None:
        for connection_id in self._keys.connections(key):
            self._core.close(connection_id, code, reason(code))


def _reference(key: SocketKey) -> KeyReference:
    return KeyReference(key.user_id, key.device_id, key.key_tag)


GATHER_S: Final = 0.25
"""How long the first use waits for others, to be written with them."""
BATCHES: Final = 32
"""Number of projects whose uses are written concurrently."""
RETRY_S: Final = 1.0
SHUTDOWN_S: Final = 2.0
"""Maximum time to write the remaining uses at shutdown. A minute of last accesses may be lost."""


class SessionExpiry:
    """Notes the use of sessions, which extends them, and closes connections of expired ones."""

    def __init__(
        self,
        core: SocketCore,
        keys: ActiveKeys,
        sessions: SessionActivity,
        session_ttl_s: float,
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        """`session_ttl_s`: the time without use until expiry. A short one makes the checks more frequent."""
        self._sessions = sessions
        self._deadlines = deadlines = Deadlines(clock)
        self.uses: Final = ActivityBuffer(note_interval_ms(round(session_ttl_s * 1000)), clock)
        self.sockets: Final = SocketExpiry(
            core, keys, sessions, deadlines, min(CHECK_INTERVAL_S, session_ttl_s / NOTES), clock
        )
        self._writer = WriteBehind(
            self.uses, self._write, batches=BATCHES, failed=_warn, gather_s=GATHER_S, retry_s=RETRY_S
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run())
            group.create_task(self.sockets.run())

    async def close(self) -> None:
        """Write the uses that wait, for at most SHUTDOWN_S seconds. Call it when `run` has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                await self._writer.drain()

    def metrics(self) -> dict[str, int]:
        """For the metrics."""
        return self.uses.metrics() | self.sockets.metrics()

    async def _write(self, batch: ProjectUses) -> None:
        project_id, uses = batch
        # A use that is noted twice does no harm: the second note comes too early.
        deadlines_found = await self._sessions.touch(project_id, uses)
        self.uses.written(len(uses))
        for use, deadline in zip(uses, deadlines_found, strict=True):
            if deadline is not None:
                key = SocketKey(project_id, use.user_id, key_tag(use.key_hash), use.device_id)
                self._deadlines.update_if_known(key, deadline)


def _warn(waiting: int) -> None:
    _log.warning("sessions.uses_not_written", waiting=waiting)
