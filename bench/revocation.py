"""Rows of revoked permissions: time to the close of connections under load, of one user and of a thousand."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp

from bench import load_client, provision, servers
from bench.control import (
    HEAD_START_S,
    MILLI,
    NANOSECOND,
    NO_LIMITS,
    SOCKETS,
    closed,
    closing,
    on_the_loads_core,
    open_socket,
    publish_in_background,
)
from bench.provision import authorization, together
from bench.report import Goal, Spread, Table
from bench.servers import BenchError
from bench.stores import opened
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import AccessControl, AccountSystem
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo

GROUP = 250
"""Members of a group whose permission is revoked."""
SOCKETS_OF_KEPT = 20
"""Connections of each user who keeps the permission."""


@dataclass(slots=True)
class _Place:
    """A project with access by permission, with one home."""

    store: Store
    project: int
    home: int

    @classmethod
    async def make(cls, store: Store) -> _Place:
        project = await store.projects.create("revocations", AccountSystem.EMAIL, AccessControl.PERMISSION)
        owner = await store.users.create(project.id, "owner", email="owner@example.com")
        home = await store.homes.create(project.id, "home", owner.id)
        return cls(store, project.id, home.id)

    @property
    def permission(self) -> Permission:
        return Permission(PermissionKind.READ_HOME_EVENTS, str(self.home))

    async def user(self, number: int) -> tuple[int, str]:
        """Id and key."""
        mail = f"{number}@example.com"
        user = await self.store.users.create(self.project, f"user {number}", email=mail)
        _, key = await self.store.sessions.open(
            self.project, user.id, "bench", ClientInfo(user_agent="bench")
        )
        return user.id, key


# -- one permission, many times --


async def _revocations(url: str, port: int, trials: int) -> list[float]:
    """For each revocation the seconds from its call to the close frame of the user's last socket."""
    async with opened(url) as (store, _), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        place = await _Place.make(store)
        user, key = await place.user(0)
        taken = []
        for _ in range(trials):
            await store.permissions.grant(place.project, user, place.permission)
            sockets = [await open_socket(http, place.home, key) for _ in range(SOCKETS)]
            asked = time.monotonic()
            revoking = asyncio.create_task(store.permissions.revoke(place.project, user, place.permission))
            await asyncio.gather(*map(closed, sockets))
            taken.append(time.monotonic() - asked)
            await revoking
        return taken


def one(*, pairs: int, small: bool) -> Table:
    """`permission revoke` on one node, the last socket closed on another that delivers 50,000 a second."""
    return closing("revocation", "permission revoke", "revocations", _revocations, pairs=pairs, small=small)


# -- a thousand at once --


@dataclass(slots=True)
class _Crowd:
    """Subscribers of one home: members of groups whose permission will end, and users who keep theirs."""

    project: int
    permission: Permission
    world: provision.World
    groups: list[tuple[int, list[str]]]
    """Of each group its id, and the keys of its members."""
    kept: list[str]

    def requests(self, keys: list[str]) -> list[str]:
        """A socket with each key."""
        path = f"/userSession/websocket?homeId={self.permission.subject}"
        return [f"{path} {authorization(key)}" for key in keys]


async def _crowd(url: str, revoked: int, kept: int, group: int) -> _Crowd:
    async with opened(url) as (store, _):
        place = await _Place.make(store)
        project, permission = place.project, place.permission
        device, device_key, _ = await store.devices.create(project, "sensor", home_id=place.home)
        home = provision.Home(place.home, [], device.id, device_key)
        holders = max(1, kept // SOCKETS_OF_KEPT)
        people = await together(place.user(number) for number in range(revoked + holders))
        await together(store.permissions.grant(project, user, permission) for user, _ in people[revoked:])
        groups = []
        for start in range(0, revoked, group):
            members = people[start : min(start + group, revoked)]
            made = await store.groups.create(project, f"group {start}")
            await store.groups.grant(project, made.id, permission)
            await together(store.groups.enter(project, made.id, user) for user, _ in members)
            groups.append((made.id, [key for _, key in members]))
        keys = [people[revoked + number % holders][1] for number in range(kept)]
        return _Crowd(project, permission, provision.World(project, "", [home]), groups, keys)


async def _revoke_all(url: str, crowd: _Crowd) -> tuple[float, list[float]]:
    """The times at which the groups lost the permission: of the call, and of each group's answer."""
    async with opened(url) as (store, _):

        async def revoke(group: int) -> float:
            await store.groups.revoke(crowd.project, group, crowd.permission)
            return time.monotonic()

        asked = time.monotonic()
        return asked, await asyncio.gather(*(revoke(group) for group, _ in crowd.groups))


@dataclass(frozen=True, slots=True)
class _Outcome:
    last_close_s: float
    """From the call to the last close frame."""
    answered_s: float
    """From the call to the last answer."""
    late_s: float
    """How long after the answer for its group the newest event was sent that a member received; 0: none."""


def _revoke_crowd(load: str, url: str, port: int, crowd: _Crowd, events: int, rate: float) -> _Outcome:
    with ExitStack() as stack:
        listening = [
            stack.enter_context(load_client.listen(load, port, crowd.requests(keys), idle=True))
            for _, keys in crowd.groups
        ]
        keeping = load_client.listen(load, port, crowd.requests(crowd.kept), expected=events)
        kept, pool = stack.enter_context(keeping), stack.enter_context(ThreadPoolExecutor(1))
        publishing = publish_in_background(pool, load, port, crowd.world, events, rate)
        time.sleep(HEAD_START_S)
        asked, answers = asyncio.run(_revoke_all(url, crowd))
        if publishing.done():
            raise BenchError("the events ended before the revocation")
        publishing.result()
        result = kept.result()
        if not result["complete"]:
            raise BenchError(f"users with the permission lost events: {result}")
        closes, late = [], [0.0]
        for listener, answered, (_, keys) in zip(listening, answers, crowd.groups, strict=True):
            listener.process.end_input()
            received = listener.result()
            if received["closed"] != len(keys) or received["faults"]:
                raise BenchError(f"{received['closed']} of {len(keys)} were closed: {received}")
            closes.append(received["last_closed_ns"] * NANOSECOND)
            late.append(received["newest_sent_ns"] * NANOSECOND - answered)
        return _Outcome(max(closes) - asked, max(answers) - asked, max(late))


def many(*, pairs: int, small: bool) -> Table:
    """1,000 of 5,000 subscribers lose their permission at once, at 50,000 deliveries a second."""
    load = load_client.binary()
    revoked, kept, group, rate = (20, 40, 10, 20.0) if small else (1_000, 4_000, GROUP, 10.0)
    table = Table(
        "revocation-many",
        f"{revoked:,} of {revoked + kept:,} listeners revoked at once, under "
        f"{(revoked + kept) * rate:,.0f} deliveries/s",
        ["", "last closed after ms", "answered after ms", "late event by ms"],
    )
    outcomes = []
    for _ in range(pairs):
        with servers.redis("always") as url:
            crowd = asyncio.run(_crowd(url, revoked, kept, group))
            with servers.homewire(url, **NO_LIMITS) as (process, port), on_the_loads_core():
                outcomes.append(_revoke_crowd(load, url, port, crowd, int(rate * 4), rate))
                servers.wait_until_quiet(process.pid)
        last = outcomes[-1]
        late = f"{last.late_s * MILLI:.1f}" if last.late_s > 0 else "none"
        table.add("homewire", f"{last.last_close_s * MILLI:.0f}", f"{last.answered_s * MILLI:.0f}", late)
    table.raw = {
        "closed_s": [each.last_close_s for each in outcomes],
        "late_s": [each.late_s for each in outcomes],
    }
    table.notes.append(f"groups of {group}, revoked by another process; redis fsync always")
    table.judge(
        Goal("closed in ≤ 1 s", "seconds", at_most=1), Spread.of([each.last_close_s for each in outcomes])
    )
    table.judge(Goal("no late event", "late", at_most=0), Spread.of([each.late_s for each in outcomes]))
    return table
