"""What a crash leaves between record and announcement is relayed, once for all and in its order."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis
from structlog.testing import CapturingLogger

from homewire.access_changes import relay as relay_module
from homewire.access_changes.relay import INTERVAL_S, SWEEP_S, Answered, Relay
from homewire.bus.shards import PENDING, events_key
from homewire.errors import NotConfirmed, Unavailable
from homewire.projects.models import AccountSystem
from homewire.redis.server_pipeline import COMMAND_S
from homewire.repositories import Store
from homewire.store.keys import PROJECTS, ProjectSlot
from kit.control_records import SHARDS, Copy, copies, dying_store, first_appearances, shards_of, until
from kit.manual_clock import loop_time
from kit.recovery import RECEIVED_WITHIN_S, TIMEOUT_S
from kit.redis_server import BusServer, eventually, not_cancelled
from kit.warm import WarmProcess

CHILD = Path(__file__).with_name("relay_child.py")
SOON_S = 20.0
"""Within which leftovers are relayed: the design says a second, the machine may be busy. Who found them only
by the sweep would need a minute."""


@dataclass
class RelayedProject:
    """A project with a home and its members."""

    redis: Redis
    store: Store
    project: int
    owner: int
    home: int

    @property
    def outbox(self) -> str:
        return ProjectSlot(self.project).outbox

    async def guests(self, count: int) -> list[int]:
        return [
            (await self.store.users.create(self.project, "G", email=f"{os.urandom(6).hex()}@example.com")).id
            for _ in range(count)
        ]

    async def guest(self) -> int:
        """A new member."""
        [guest] = await self.guests(1)
        await self.store.homes.add_member(self.project, self.home, guest)
        return guest

    async def left(self, *guests: int) -> list[tuple[int, int]]:
        """Have them added by somebody who dies each time; the places of the records in the outbox."""
        dying = dying_store(self.redis)
        for guest in guests:
            await dying.homes.add_member(self.project, self.home, guest)
        entries: Any = await self.redis.xrange(self.outbox)
        return [(int(at.split(b"-")[0]), int(at.split(b"-")[1])) for at, _ in entries]

    async def is_relayed(self) -> bool:
        return await self.redis.xlen(self.outbox) == 0

    async def copies_about(self, *users: int) -> list[Copy]:
        return [copy for copy in await copies(self.redis, self.project) if copy.user in users]


@pytest.fixture
async def subject(redis: Redis) -> RelayedProject:
    store = Store(redis, Relay(redis, SHARDS))
    project = (await store.projects.create("relay", AccountSystem.EMAIL)).id
    owner = (await store.users.create(project, "Ada", email="ada@example.com")).id
    home = (await store.homes.create(project, "home", owner)).id
    return RelayedProject(redis, store, project, owner, home)


@asynccontextmanager
async def running(*relays: Relay) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def child(server: BusServer, subject: RelayedProject, *words: object) -> AsyncIterator[str]:
    """A process of relay_child.py that came to where it stops; what it said. Killed at the end."""
    arguments = (str(CHILD), server.url, str(subject.project), *map(str, words))
    with WarmProcess(arguments, os.environ) as process:
        try:
            yield (await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)).strip()
        finally:
            process.kill()


async def test_process_killed_between_record_and_announcement(
    server: BusServer, redis: Redis, subject: RelayedProject
) -> None:
    guest = await subject.guest()
    relay = Relay(redis, SHARDS)
    async with running(relay):
        # Its sweep of everything, which would find it too, is over long before the child is there.
        async with child(server, subject, "change", subject.home, guest) as said:
            assert said == "recorded"
        await until(subject.is_relayed, SOON_S)
        await eventually(lambda: relay.stats.late_records == 1)
    assert await subject.store.homes.of_user(subject.project, guest) == []
    removed = [copy for copy in await subject.copies_about(guest) if copy.type == 2]
    assert {copy.shard for copy in removed} == shards_of(subject.home, guest)


async def test_without_relay_record_is_not_announced(
    server: BusServer, redis: Redis, subject: RelayedProject
) -> None:
    guest = await subject.guest()
    async with child(server, subject, "change", subject.home, guest):
        pass
    assert [copy.type for copy in await subject.copies_about(guest) if copy.type == 2] == []
    assert await redis.xlen(subject.outbox) == 1
    assert await redis.zscore(PENDING, str(subject.project)) is not None


@pytest.mark.parametrize("shards", [0, 1, 5])
async def test_relay_killed_among_its_copies_is_followed_by_another(
    server: BusServer, redis: Redis, subject: RelayedProject, shards: int
) -> None:
    guests = await subject.guests(30)
    order = await subject.left(*guests)
    async with child(server, subject, "relay", shards) as said:
        assert said == "copied"
    assert len({copy.shard for copy in await subject.copies_about(*guests)}) == shards
    assert await redis.xlen(subject.outbox) == len(guests)
    await Relay(redis, SHARDS).announce(subject.project)
    await check_complete_and_in_order(subject, guests, order)


async def check_complete_and_in_order(
    subject: RelayedProject, guests: list[int], order: list[tuple[int, int]]
) -> None:
    await until(subject.is_relayed)
    found = await subject.copies_about(*guests)
    where = dict(zip(order, (shards_of(guest, subject.home) for guest in guests), strict=True))
    seen = first_appearances(found)
    for shard in range(SHARDS):
        assert seen.get(shard, []) == [outbox for outbox in order if shard in where[outbox]], shard


async def test_relays_at_one_outbox_neither_lose_nor_reorder(
    server: BusServer, redis: Redis, subject: RelayedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "ENTRIES", 7)
    guests = await subject.guests(120)
    order = await subject.left(*guests)
    clients = [server.client() for _ in range(4)]
    try:
        await asyncio.gather(*(Relay(client, SHARDS).announce(subject.project) for client in clients))
    finally:
        for client in clients:
            await client.aclose()
    await check_complete_and_in_order(subject, guests, order)


async def test_records_copied_again_behind_later_ones_stand_once_in_each_shard(
    redis: Redis, subject: RelayedProject
) -> None:
    """A relay that was slow copies a page which another one copied, followed by the next."""
    relay, guests = Relay(redis, SHARDS), await subject.guests(2)
    order = await subject.left(*guests)
    entries: Any = await redis.xrange(subject.outbox)
    first, second = entries
    for page in ([first], [second], [first]):
        await relay._copy(subject.project, page)
    assert len(await subject.copies_about(*guests)) == sum(
        len(shards_of(each, subject.home)) for each in guests
    )
    await relay.announce(subject.project)
    await check_complete_and_in_order(subject, guests, order)


async def test_changes_beside_running_relays_neither_get_lost_nor_reordered(
    server: BusServer, redis: Redis, subject: RelayedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "INTERVAL_S", 0.0)
    guests, clients = await subject.guests(80), [server.client() for _ in range(3)]
    stores = [Store(client, Relay(client, SHARDS)) for client in clients]
    chance = random.Random(4)

    async def busy(some: list[int]) -> None:
        for guest in some:
            if chance.random() < 0.2:
                await dying_store(redis).homes.add_member(subject.project, subject.home, guest)
            else:
                await chance.choice(stores).homes.add_member(subject.project, subject.home, guest)
                about = {copy.shard for copy in await subject.copies_about(guest)}
                assert about == shards_of(guest, subject.home), "answered before it was announced"

    try:
        async with running(*(Relay(client, SHARDS) for client in clients)):
            await asyncio.gather(*(busy(guests[start::4]) for start in range(4)))
            await until(subject.is_relayed, SOON_S)
    finally:
        for client in clients:
            await client.aclose()
    found = await subject.copies_about(*guests)
    at_home = first_appearances(found)[next(iter(shards_of(subject.home)))]
    assert len(at_home) == len(guests)
    assert at_home == sorted(at_home)
    for order in first_appearances(found).values():
        assert order == sorted(order)


async def test_redis_dies_between_record_and_announcement(
    server: BusServer, redis: Redis, subject: RelayedProject
) -> None:
    class Unlucky(Relay):
        async def announce(
            self, project_id: int, deadline: float = math.inf, entries: Answered = None
        ) -> None:
            server.kill()
            await super().announce(project_id, deadline, entries)

    guest = await subject.guest()
    with pytest.raises(NotConfirmed):
        await Store(redis, Unlucky(redis, SHARDS)).homes.remove_member(subject.project, subject.home, guest)
    relay = Relay(redis, SHARDS)
    async with running(relay):
        await until_failed(relay)
        await asyncio.to_thread(server.start)
        await until(subject.is_relayed, SOON_S)
    removed = [copy.shard for copy in await subject.copies_about(guest) if copy.type == 2]
    assert set(removed) == shards_of(subject.home, guest)


async def until_failed(relay: Relay) -> None:
    await eventually(lambda: relay.stats.failures > 0)


async def test_relay_survives_a_restart(server: BusServer, redis: Redis, subject: RelayedProject) -> None:
    relay = Relay(redis, SHARDS)
    async with running(relay):
        server.kill()
        await until_failed(relay)
        await asyncio.to_thread(server.start)
        [guest] = await subject.guests(1)
        await subject.left(guest)
        await until(subject.is_relayed, SOON_S)
    assert {copy.shard for copy in await subject.copies_about(guest)} == shards_of(guest, subject.home)


async def test_hung_redis_is_not_waited_for_longer_than_promised(
    server: BusServer, redis: Redis, subject: RelayedProject
) -> None:
    """503 within 5 s of waiting, wherever in the change Redis stops."""

    class Hanging(Relay):
        async def announce(
            self, project_id: int, deadline: float = math.inf, entries: Answered = None
        ) -> None:
            server.hang()
            await super().announce(project_id, deadline, entries)

    async def is_refused(relay: Relay, user: int, error: type[Unavailable]) -> None:
        async with loop_time() as waited:
            with pytest.raises(Unavailable) as caught:
                await Store(redis, relay).homes.remove_member(subject.project, subject.home, user)
        server.go_on()
        assert type(caught.value) is error
        assert waited.seconds < 5

    guest = await subject.guest()
    await is_refused(Hanging(redis, SHARDS), guest, NotConfirmed)
    server.hang()
    await is_refused(Relay(redis, SHARDS), subject.owner, Unavailable)


async def test_failing_shard_loses_no_record(redis: Redis, subject: RelayedProject) -> None:
    guests = await subject.guests(10)
    blocked = next(iter(shards_of(guests[4]) - shards_of(subject.home)))
    await redis.set(events_key(blocked), "no stream")
    order = await subject.left(*guests[:-1])
    with pytest.raises(NotConfirmed):
        await subject.store.homes.add_member(subject.project, subject.home, guests[-1])
    assert await redis.xlen(subject.outbox) == len(guests)
    order = await subject.left()
    relay = Relay(redis, SHARDS)
    async with running(relay):
        await until_failed(relay)
        assert await redis.xlen(subject.outbox) == len(guests)
        await redis.delete(events_key(blocked))
        await until(subject.is_relayed, SOON_S)
    await check_complete_and_in_order(subject, guests, order)


async def test_trouble_of_one_project_is_not_that_of_others(redis: Redis, subject: RelayedProject) -> None:
    others = [await subject.store.projects.create("other", AccountSystem.EMAIL) for _ in range(3)]
    await redis.set(ProjectSlot(others[0].id).outbox, "no stream")
    [guest] = await subject.guests(1)
    relay = Relay(redis, SHARDS)
    await redis.zadd(PENDING, {"no project": 0, "9" * 5000: 0})
    for each in others:
        await relay.expect(each.id)
    await subject.left(guest)
    async with running(relay):
        await until(subject.is_relayed, SOON_S)
        await until_failed(relay)


async def test_malformed_outbox_entry_stops_no_record(
    redis: Redis, subject: RelayedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where lines go is set up for the whole process, by whatever ran in it before.
    lines = CapturingLogger()
    monkeypatch.setattr("homewire.access_changes.relay._log", structlog.wrap_logger(lines, processors=[]))
    garbage: list[dict[Any, Any]] = [
        {"x": "y"}, {"t": "member"}, {"t": "1"}, {"t": "6", "d": "4", "b": "x"}, {"t": "4", "k": "zz"}
    ]  # fmt: skip
    guests = await subject.guests(len(garbage) + 1)
    for guest, fields in zip(guests, garbage, strict=False):
        await subject.left(guest)
        await redis.xadd(subject.outbox, fields)
    relay = Relay(redis, SHARDS)
    await Store(redis, relay).homes.add_member(subject.project, subject.home, guests[-1])
    await until(subject.is_relayed)
    assert relay.stats.malformed == len(garbage)
    assert relay.stats.records == len(guests)
    at_home = [
        copy.user for copy in await subject.copies_about(*guests) if copy.shard in shards_of(subject.home)
    ]
    assert list(dict.fromkeys(at_home)) == guests
    assert [line.kwargs["event"] for line in lines.calls] == ["relay.malformed"]


async def test_outbox_that_is_not_pending_is_found_by_sweep(redis: Redis, subject: RelayedProject) -> None:
    """As when a node stood still for long between `expect` and the script."""
    [guest] = await subject.guests(1)
    await subject.left(guest)
    await subject.store.projects.create("another", AccountSystem.EMAIL)
    deleted = (await subject.store.projects.create("buried", AccountSystem.EMAIL)).id
    await dying_store(redis).projects.delete(deleted)
    assert await redis.zcard(PROJECTS) == 2
    await redis.delete(PENDING)
    async with running(Relay(redis, SHARDS)):

        async def all_relayed() -> bool:
            return await subject.is_relayed() and await redis.xlen(ProjectSlot(deleted).outbox) == 0

        await until(all_relayed, SOON_S)
    assert {copy.shard for copy in await copies(redis, deleted)} == set(range(SHARDS))


async def test_projects_are_pending_no_longer_than_they_must(
    redis: Redis, subject: RelayedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, stands = Relay(redis, SHARDS), str(subject.project)
    await relay.expect(subject.project)
    await relay._relay_pending()
    assert await redis.zscore(PENDING, stands) is not None, "a change that is under way would not be found"
    before = float(await redis.zscore(PENDING, stands) or 0)
    seconds, _ = await redis.time()
    assert abs(before - seconds * 1000) < 60_000
    monkeypatch.setattr(relay_module, "PENDING_TTL_MS", 0)
    await subject.left(*await subject.guests(1))
    await redis.set(events_key(next(iter(shards_of(subject.home)))), "no stream")
    await relay._relay_pending()
    assert await redis.zscore(PENDING, stands) is not None, "its record is not relayed"
    await redis.delete(events_key(next(iter(shards_of(subject.home)))))
    await relay._relay_pending()
    await relay._relay_pending()
    assert await redis.exists(PENDING) == 0


async def test_project_is_noted_again_before_it_is_forgotten(
    redis: Redis, subject: RelayedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, noted = Relay(redis, SHARDS), (PENDING, str(subject.project))
    await asyncio.gather(*(relay.expect(subject.project) for _ in range(10)))
    first = await redis.zscore(*noted)
    await relay.expect(subject.project)
    assert await redis.zscore(*noted) == first, "a round trip for nothing"
    assert relay_module.EXPECT_TTL_S + COMMAND_S < relay_module.PENDING_TTL_MS / 1000
    later = Relay(redis, SHARDS)
    monkeypatch.setattr(relay_module, "EXPECT_TTL_S", 0.0)
    await later.expect(subject.project)
    await redis.delete(PENDING)
    await later.expect(subject.project)
    assert await redis.zscore(*noted) is not None


async def test_very_many_projects_are_pending(redis: Redis, subject: RelayedProject) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(1, 3_001):
            pipeline.zadd(PENDING, {str(10**9 + number): number})
        await pipeline.execute()
    [guest] = await subject.guests(1)
    await subject.left(guest)
    relay = Relay(redis, SHARDS)
    await relay._relay_pending()
    await until(subject.is_relayed)
    await relay._relay_pending()
    assert await redis.zcard(PENDING) == 1


async def test_cancelled_relay_ends_wherever_it_was(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "INTERVAL_S", 0)
    timers = [asyncio.create_task(Relay(redis, SHARDS).run()) for _ in range(20)]
    assert await not_cancelled(redis, timers) == 0


def test_intervals_of_relay_keep_the_contract() -> None:
    """It comes often enough. The tests of recovery wait less than it takes to the next chance, the sweep."""
    assert 2 * INTERVAL_S < RECEIVED_WITHIN_S
    assert 2 * TIMEOUT_S < SWEEP_S
