"""Quotas: what is stored is counted exactly, given back exactly, and refused beyond the settings."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.clock import MACHINE_CLOCK
from homewire.entities.store import Entity
from homewire.errors import QuotaExceeded
from homewire.events.queued_commands import QueueBounds, QueuedCommand
from homewire.homes.models import Role
from homewire.kv.store import Owner
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import AccountSystem, KeyScope
from homewire.projects.usage import StoredAmount
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo, Lifetime
from homewire.sessions.store import ALWAYS_OPENED
from homewire.store.accounting import COSTS, Quotas
from homewire.store.keys import ProjectSlot
from kit.key_space import names_of
from kit.manual_clock import ManualClock
from kit.node import eventually
from kit.stored_life import MINUTE_MS, ROOMY, StoredLife

STEPS = 800
SOON_MS = 5_000
EXPIRING = re.compile(r"session:[0-9a-f]{24}|provisioning:[0-9a-f]{64}|device:\d+:commands")
"""The keys whose charges end by themselves."""
AT_ONCE = 8


def limited(redis: Redis, **quotas: int) -> Store:
    return Store(redis, Relay(redis, 64), quotas=Quotas(**quotas))


async def records_are(store: Store, project_id: int, count: int) -> bool:
    return (await store.usage.of(project_id)).records == count


async def charges_that_are_wrong(redis: Any, slot: ProjectSlot) -> set[tuple[str, int]]:
    """Charges that end by themselves, but not with what they are for; and what has none, or several.

    Each as the key and its end. What ends in these seconds is not looked at.
    """
    soon = await redis.time()
    soon = soon[0] * 1000 + SOON_MS
    charges = await redis.zrange(slot.expiring, 0, -1, withscores=True)
    charged = [(name.decode().split(" ")[0], int(ends)) for name, ends in charges if ends > soon]
    found = set()
    for name in await names_of(redis, slot.prefix + "*"):
        short = name.removeprefix(slot.prefix)
        if EXPIRING.fullmatch(short) and (ends := await redis.pexpiretime(name)) > soon:
            found.add((short, ends))
    twice = {each for each in charged if charged.count(each) > 1}
    return found ^ set(charged) | twice


async def payers_elsewhere(redis: Any, slot: ProjectSlot) -> list[bytes]:
    """Homes that count for a user who is no member of them."""
    fields = await redis.hgetall(slot.usage)
    payers = {name: user for name, user in fields.items() if name.endswith(b":payer")}
    return [
        name
        for name, user in payers.items()
        if not await redis.hexists(slot.home_members(int(name[1:].split(b":")[0])), user[1:])
    ]


@pytest.mark.parametrize("on_demand", [False, True])
async def test_counters_equal_a_recount_whatever_happened(
    store: Store, redis_client: Any, on_demand: bool
) -> None:
    """`HOMEWIRE_SEED=n` makes the same changes; their order is that of the moment."""
    seed = int(os.environ.get("HOMEWIRE_SEED") or secrets.randbelow(10**9))
    project = await store.projects.create("life", AccountSystem.EMAIL, on_demand_provisioning=on_demand)
    life = StoredLife(store, project, Random(seed))
    for _ in range(4):
        for _ in range(STEPS // 4 // AT_ONCE):
            await asyncio.gather(*(life.step() for _ in range(AT_ONCE)))
        # What a change left to be swept was swept by the change itself.
        counted, found = await store.recount.counted(project.id)
        assert counted == found, seed
        assert not await charges_that_are_wrong(redis_client, ProjectSlot(project.id)), seed
        assert not await payers_elsewhere(redis_client, ProjectSlot(project.id)), seed
    await life.end()
    counted, found = await store.recount.counted(project.id)
    assert counted == found, seed
    # Of tokens to provision devices nobody knows any more; they end by themselves.
    assert {name.partition(":")[0][0] for name in counted} <= {"p", "u"}, seed
    slot = ProjectSlot(project.id)
    assert not await charges_that_are_wrong(redis_client, slot), seed
    for name in await redis_client.zrange(slot.expiring, 0, -1):
        await redis_client.zadd(slot.expiring, {name: 1})
    assert await store.usage.of(project.id) == StoredAmount(), seed
    assert await store.recount.counted(project.id) == ({}, {}), seed


async def test_recount_corrects_counters_that_are_missing_or_wrong(store: Store, redis_client: Any) -> None:
    project = await store.projects.create("old", AccountSystem.EMAIL)
    life = StoredLife(store, project, Random(7))
    for _ in range(150):
        await life.step()
    before = await store.recount.counted(project.id)
    slot = ProjectSlot(project.id)
    payers = {k: v for k, v in (await redis_client.hgetall(slot.usage)).items() if k.endswith(b":payer")}
    await redis_client.unlink(slot.usage)
    if payers:
        await redis_client.hset(slot.usage, mapping=payers)
    await redis_client.hset(slot.usage, mapping={"h987654321:bytes": 5, "0:records": 12})
    corrected = await store.recount.recount(project.id)
    assert await store.recount.counted(project.id) == before
    assert corrected == StoredAmount(before[0]["project:bytes"], before[0]["project:records"])


async def test_each_kind_of_record_is_refused_at_the_quota_of_the_project(redis_client: Redis) -> None:
    free = limited(redis_client)
    project = await free.projects.create("full", AccountSystem.EMAIL)
    user = await free.users.create(project.id, "Ada", email="ada@example.com")
    home = await free.homes.create(project.id, "home", user.id)
    device, _, _ = await free.devices.create(project.id, "lamp", home.id)
    group = await free.groups.create(project.id, "group")
    stored = await free.usage.of(project.id)
    store = limited(redis_client, project_records=stored.records)
    permission = Permission(PermissionKind.READ_HOME_EVENTS, str(home.id))
    value = Owner(project.id, "home", home.id)
    command = QueuedCommand(device.id, b"\x93", b"x", MACHINE_CLOCK.now_ms() + MINUTE_MS)
    before = await names_of(redis_client, ProjectSlot(project.id).prefix + "*")
    for change in (
        lambda: store.users.create(project.id, "Bob", email="bob@example.com"),
        lambda: store.homes.create(project.id, "home", user.id),
        lambda: store.devices.create(project.id, "lamp", home.id),
        lambda: store.devices.create(project.id, "lamp"),
        lambda: store.groups.create(project.id, "group"),
        lambda: store.groups.grant(project.id, group.id, permission),
        lambda: store.groups.enter(project.id, group.id, user.id),
        lambda: store.permissions.grant(project.id, user.id, permission),
        lambda: store.entities.create(Entity("e", project.id, home.id, "room"), 10),
        lambda: store.key_values.put(value, "key", b"1", ROOMY),
        lambda: store.project_keys.create(project.id, "key", {KeyScope.READ}),
        lambda: store.apps.create(project.id, "app"),
        lambda: store.provisioning.begin(project.id, home.id, user.id, "lamp"),
        lambda: store.queued_commands.add(project.id, command, QueueBounds(10, 1000)),
    ):
        with pytest.raises(QuotaExceeded) as refused:
            await change()
        assert refused.value.data["setting"] == "project_records"
    assert await names_of(redis_client, ProjectSlot(project.id).prefix + "*") == before
    assert await store.usage.of(project.id) == stored
    # What makes room is always taken, and then there is some.
    await store.groups.delete(project.id, group.id)
    await store.key_values.put(value, "key", b"1", ROOMY)


async def test_user_at_quota_can_sign_in(redis_client: Redis) -> None:
    store = limited(redis_client, user_records=2)
    project = await store.projects.create("locked", AccountSystem.EMAIL)
    ada = await store.users.create(project.id, "ada", email="ada@example.com")
    await store.homes.create(project.id, "home", ada.id)
    for _ in range(ALWAYS_OPENED):
        await store.sessions.open(project.id, ada.id, "app", ClientInfo())
    assert (await store.usage.of(project.id, f"u{ada.id}")).records == 2 + ALWAYS_OPENED
    with pytest.raises(QuotaExceeded) as refused:
        await store.sessions.open(project.id, ada.id, "app", ClientInfo())
    assert refused.value.data["setting"] == "user_records"
    assert len(await store.sessions.of_user(project.id, ada.id)) == ALWAYS_OPENED


async def test_user_pays_for_all_homes_that_the_user_created(redis_client: Redis) -> None:
    room = 2 * (COSTS["home"] + COSTS["member"] + COSTS["value"]) + COSTS["member"] + 1000
    store = limited(redis_client, user_bytes=room)
    project = await store.projects.create("fair", AccountSystem.EMAIL)
    ada, bob = [
        await store.users.create(project.id, name, email=f"{name}@example.com") for name in ("ada", "bob")
    ]
    first, second = [(await store.homes.create(project.id, "home", ada.id)).id for _ in range(2)]
    await store.homes.add_member(project.id, first, bob.id)
    await store.key_values.put(Owner(project.id, "home", first), "key", b"1" * 600, ROOMY)
    with pytest.raises(QuotaExceeded) as refused:
        await store.key_values.put(Owner(project.id, "home", second), "key", b"1" * 600, ROOMY)
    assert refused.value.data["setting"] == "user_bytes"
    # Bob has all of it.
    his = await store.homes.create(project.id, "home", bob.id)
    await store.key_values.put(Owner(project.id, "home", his.id), "key", b"1" * 600, ROOMY)
    # Less is always taken, and makes room.
    await store.key_values.put(Owner(project.id, "home", first), "key", b"1", ROOMY)
    await store.key_values.put(Owner(project.id, "home", second), "key", b"1" * 600, ROOMY)


async def test_home_that_its_payer_left_counts_for_itself(redis_client: Redis) -> None:
    store = limited(redis_client, user_records=4)
    project = await store.projects.create("left", AccountSystem.EMAIL)
    ada, bob = [
        await store.users.create(project.id, name, email=f"{name}@example.com") for name in ("ada", "bob")
    ]
    home = (await store.homes.create(project.id, "home", ada.id)).id
    await store.homes.add_member(project.id, home, bob.id)
    await store.homes.set_role(project.id, home, bob.id, Role.OWNER)
    await store.homes.remove_member(project.id, home, ada.id)
    assert await store.usage.of(project.id, f"u{ada.id}") == StoredAmount()
    for key in ("a", "b"):
        await store.key_values.put(Owner(project.id, "home", home), key, b"1", ROOMY)
    with pytest.raises(QuotaExceeded) as refused:
        await store.key_values.put(Owner(project.id, "home", home), "c", b"1", ROOMY)
    assert refused.value.data["setting"] == "user_records"
    await store.homes.create(project.id, "home", ada.id)


async def test_entity_that_grows_is_charged(redis_client: Redis) -> None:
    store = limited(redis_client, user_bytes=COSTS["home"] + COSTS["member"] + COSTS["entity"] + 300)
    project = await store.projects.create("grows", AccountSystem.EMAIL)
    ada = await store.users.create(project.id, "ada", email="ada@example.com")
    home = await store.homes.create(project.id, "home", ada.id)
    made = await store.entities.create(Entity("e", project.id, home.id, "room"), 10)
    before = await store.usage.of(project.id)
    with pytest.raises(QuotaExceeded):
        await store.entities.update(made, {"description": "x" * 250})
    assert await store.entities.get(project.id, "e") == made
    assert await store.usage.of(project.id) == before


async def test_deleted_records_are_no_longer_charged(redis_client: Redis) -> None:
    store = limited(redis_client, project_records=4)
    project = await store.projects.create("passing", AccountSystem.EMAIL)
    ada = await store.users.create(project.id, "ada", email="ada@example.com")
    home = await store.homes.create(project.id, "home", ada.id)
    await store.provisioning.begin(project.id, home.id, ada.id, "lamp", lifetime_ms=1)
    # Its time is over by Redis' clock before the next command is there, or soon after.
    await eventually(lambda: records_are(store, project.id, 3))
    await store.provisioning.begin(project.id, home.id, ada.id, "lamp")
    with pytest.raises(QuotaExceeded):
        await store.provisioning.begin(project.id, home.id, ada.id, "lamp")


async def records_of_sessions(redis: Any, project_id: int) -> int:
    return len(await names_of(redis, ProjectSlot(project_id).session("*")))


class TickingClock(ManualClock):
    """Is a millisecond later each time that it is read."""

    def now_ms(self) -> int:
        self.turn_ms(1)
        return self.ms


async def test_of_sessions_that_are_over_the_newest_are_kept(redis_client: Any) -> None:
    # Of those that end in the same millisecond any is the oldest.
    store = Store(redis_client, Relay(redis_client, 64), TickingClock(), ended_sessions=3)
    project = await store.projects.create("over", AccountSystem.EMAIL)
    ada = await store.users.create(project.id, "ada", email="ada@example.com")
    device, _, _ = await store.devices.create(project.id, "lamp")
    opened = [(await store.sessions.open(project.id, ada.id, "app", ClientInfo()))[0].id for _ in range(7)]
    nodes = [(await store.sessions.open_node(project.id, device.id, ClientInfo()))[0].id for _ in range(5)]
    for session in (*opened[:6], *nodes):
        await store.sessions.end(project.id, session)
        # The one that ended last is among them.
        assert await store.sessions.get(project.id, session) is not None
    found = [await store.sessions.get(project.id, session) is not None for session in (*opened, *nodes)]
    assert found == [False, False, False, True, True, True, True, False, False, True, True, True]
    assert await records_of_sessions(redis_client, project.id) == 7
    assert (await store.usage.of(project.id)).records == 2 + 7
    assert await charges_that_are_wrong(redis_client, ProjectSlot(project.id)) == set()


async def test_sessions_that_expired_are_kept_no_more_than_those_that_ended(redis_client: Any) -> None:
    clock = ManualClock()
    store = Store(redis_client, Relay(redis_client, 64), clock=clock, ended_sessions=3)
    project = await store.projects.create("expired", AccountSystem.EMAIL)
    ada = await store.users.create(project.id, "ada", email="ada@example.com")
    for _ in range(4):
        for _ in range(5):
            await store.sessions.open(project.id, ada.id, "app", ClientInfo(), lifetime=Lifetime(1000, 0))
        clock.turn_ms(1000)
    await store.sessions.open(project.id, ada.id, "app", ClientInfo())
    assert await records_of_sessions(redis_client, project.id) == 4
    assert (await store.usage.of(project.id, f"u{ada.id}")).records == 4


async def test_commands_that_still_wait_stay_charged(store: Store, redis_client: Any) -> None:
    project = await store.projects.create("waiting", AccountSystem.EMAIL)
    device, _, _ = await store.devices.create(project.id, "lamp")
    ends = MACHINE_CLOCK.now_ms() + MINUTE_MS
    for number in range(3):
        command = QueuedCommand(device.id, b"\x93", b"x" * 100, ends + number)
        await store.queued_commands.add(project.id, command, QueueBounds(10, 10_000))
    await store.queued_commands.remove(project.id, device.id, [1])
    assert (await store.usage.of(project.id)).records == 1 + 2
    assert await charges_that_are_wrong(redis_client, ProjectSlot(project.id)) == set()
    await store.queued_commands.remove(project.id, device.id, [2, 3])
    assert await store.usage.of(project.id) == StoredAmount(COSTS["device"], 1)
