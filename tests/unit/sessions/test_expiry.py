"""Open sockets and a store that answers nothing, and a core that tells its keys in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import cast

import pytest

from homewire.auth.models import Principal, PrincipalKind
from homewire.clock import MACHINE_CLOCK
from homewire.realtime.close_codes import KEY_ENDED, TRY_AGAIN
from homewire.sessions.activity import KeyReference, LiveSession, SessionActivity, SessionDeadline, SessionUse
from homewire.sessions.deadlines import ActiveKeys, Deadlines, SocketKey
from homewire.sessions.expiry import CHUNK, TICK_S, SocketExpiry
from kit.manual_clock import ManualClock

HOUR = 3_600_000
MANY = 4_500
"""Asked chunk by chunk, a store that answers nothing would keep the last of them waiting for 22 s."""


class Core:
    """Tells some keys, and notes what it is to close."""

    def __init__(self, keys: ActiveKeys, *parts: list[tuple[int, int, int]]) -> None:
        self.keys = keys
        self.parts = parts or ([],)
        self.closed: dict[int, int] = {}
        self.ended: set[int] = set()
        self.first_closed = asyncio.Event()
        self.all_closed = asyncio.Event()

    def active_keys(self, cursor: int, limit: int) -> None:
        assert limit == CHUNK
        following = cursor + 1 if cursor + 1 < len(self.parts) else 0
        self.keys.on_page(following, self.parts[cursor])

    def end_key(self, project: int, user: int, key_tag: int) -> None:
        self.ended.add(user)

    def close(self, id: int, code: int, reason: str) -> None:
        self.closed[id] = code
        self.first_closed.set()
        if len(self.closed) == MANY:
            self.all_closed.set()

    def stats(self) -> dict[str, int]:
        return {"connections": 1}


class Silence:
    """A store whose Redis does not answer."""

    async def of_keys(
        self, _project: int, _keys: Collection[KeyReference]
    ) -> dict[KeyReference, LiveSession]:
        never: asyncio.Future[dict[KeyReference, LiveSession]] = asyncio.get_running_loop().create_future()
        return await never


class Sessions:
    """A store in which the sessions of odd users live, unused for an hour."""

    def __init__(self) -> None:
        self.used: list[int] = []
        self.looked = asyncio.Event()

    async def of_keys(self, _project: int, keys: Collection[KeyReference]) -> dict[KeyReference, LiveSession]:
        now = MACHINE_CLOCK.now_ms()
        live = SessionDeadline(now + HOUR, 0)
        return {key: LiveSession("", "", now - HOUR, 2 * HOUR, live) for key in keys if key.user_id % 2}

    async def touch(self, _project: int, uses: Sequence[SessionUse]) -> list[SessionDeadline | None]:
        self.used += [use.user_id for use in uses]
        if len(self.used) == 3:
            self.looked.set()
        return [SessionDeadline(use.used_ms + 2 * HOUR, 0) for use in uses]


async def test_unknown_expiries_do_not_delay_others() -> None:
    """Thousands log in in one minute, use nothing but a socket, and Redis goes away."""
    keys = ActiveKeys()
    core = Core(keys)
    clock = ManualClock()
    sockets = SocketExpiry(core, keys, cast(SessionActivity, Silence()), Deadlines(clock), clock=clock)
    soon = clock.ms + 100
    for number in range(MANY):
        principal = Principal(
            PrincipalKind.USER,
            1,
            number + 1,
            number,
            expires_ms=soon,
            session_id="s",
            ends_ms=soon * (number < 10),
        )
        sockets.opened(number, principal)
    running = asyncio.create_task(sockets.run())
    # The check of all sockets, and the watch of deadlines.
    await clock.begun(2)
    clock.turn(TICK_S)
    await asyncio.wait_for(core.all_closed.wait(), 10)
    running.cancel()
    assert {number for number, code in core.closed.items() if code == KEY_ENDED} == set(range(10))
    assert {number for number, code in core.closed.items() if code == TRY_AGAIN} == set(range(10, MANY))
    assert sockets.metrics()["sessions_closed_unchecked"] == MANY - 10


async def test_deadline_added_while_idle_is_due_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homewire.sessions.expiry.CLOCK_CHECK_S", HOUR)
    keys = ActiveKeys()
    core = Core(keys)
    clock = ManualClock()
    sockets = SocketExpiry(core, keys, cast(SessionActivity, Silence()), Deadlines(clock), clock=clock)
    running = asyncio.create_task(sockets.run())
    await clock.begun(2)
    clock.turn(TICK_S)
    # Nothing is due for an hour.
    await clock.begun(3)
    soon = clock.ms + round(2 * TICK_S * 1000)
    principal = Principal(PrincipalKind.USER, 1, 1, 1, expires_ms=soon, session_id="s", ends_ms=soon)
    sockets.opened(1, principal)
    for begun in (4, 5):
        await clock.begun(begun)
        assert core.closed == {}
        clock.turn(TICK_S)
    await asyncio.wait_for(core.first_closed.wait(), 5)
    running.cancel()
    assert core.closed == {1: KEY_ENDED}


async def test_look_uses_each_session_and_ends_the_keys_that_have_none() -> None:
    keys, sessions = ActiveKeys(), Sessions()
    core = Core(keys, [(1, 1, 1), (1, 2, 2)], [], [(2, 3, 3), (1, 4, 4), (1, 5, 5)])
    sockets = SocketExpiry(core, keys, cast(SessionActivity, sessions), Deadlines(), check_interval_s=0.1)
    running = asyncio.create_task(sockets.run())
    await asyncio.wait_for(sessions.looked.wait(), 5)
    running.cancel()
    # The next look may have begun.
    assert sorted(sessions.used[:3]) == [1, 3, 5]
    assert core.ended == {2, 4}


def test_connections_are_remembered_until_they_are_told_closed() -> None:
    keys = ActiveKeys()
    user, device = SocketKey(1, 2, 3), SocketKey(1, 0, 4, 5)
    for connection_id, key in enumerate([user, user, device]):
        keys.remember(connection_id, key)
    assert (set(keys.connections(user)), keys.device_keys()) == ({0, 1}, [device])
    for connection_id in (0, 1, 2, 2, 99):
        keys.closed(connection_id)
    assert (keys.connections(user), keys.device_keys(), len(keys)) == ((), [], 0)
