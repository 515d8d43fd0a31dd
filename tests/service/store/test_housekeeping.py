"""Housekeeping: a process that dies in the middle of a deletion is followed by any node, within seconds."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from kit.homes import HomeWithMembers, home_with_members
from kit.in_redis import DELETED_PROJECTS, PATROLLED, UNFINISHED
from kit.node import NodeProcess, eventually, private_node
from kit.recovery import dying_change
from kit.tenant import Tenant, project_of, tenant_of

WITHIN_S = 25.0
"""Nodes follow a deletion 5 s after it began."""
HOMES_LEFT_AT_ONCE = 20


async def die_deleting(node: NodeProcess, what: str, *ids: int) -> None:
    """kill -9 behind the first step of a deletion, and before the second."""
    with dying_change(node.redis_url, "announce", what, *ids) as dying:
        await dying.arrives()
        dying.dies()


async def keys_of(redis: Redis, project: int, subject: int | None = None) -> list[str]:
    """The names of a project's keys, or of those that have an id in them."""
    names = [
        name.decode()
        async for name in redis.scan_iter(project_of(redis, project).slot.prefix + "*", count=1000)
    ]
    return [name for name in names if subject is None or str(subject) in name.split(":")]


async def forgotten(tenant: Tenant) -> None:
    """Wait until nobody looks into the project any more: it was swept."""

    async def gone() -> bool:
        return await tenant.redis.zscore(UNFINISHED, str(tenant.project)) is None

    await eventually(gone, WITHIN_S)


async def deleted(tenant: Tenant, path: str, key: str) -> None:
    """Delete something by the API. An overloaded Redis may keep the answer from being confirmed, or the
    change from being made."""
    async with asyncio.timeout(WITHIN_S):
        answer = await tenant.ask("DELETE", path, key)
        done = {204}
        while answer.status == 503:
            done |= {401, 404} if answer.reason == "NOT_CONFIRMED" else set()
            # The overloaded Redis gets time to work off what waits.
            await asyncio.sleep(0.1)
            answer = await tenant.ask("DELETE", path, key)
    assert answer.status in done, answer


async def home_died(node: NodeProcess, turn: asyncio.Lock) -> None:
    async with tenant_of(node) as tenant:
        async with turn:
            at_home, slot, project = (
                await home_with_members(tenant),
                tenant.slot,
                tenant.project,
            )
            guest = (await at_home.add(at_home.owner.key, email="guest@example.com")).body["userId"]
            device = await tenant.device(at_home.home)
            await die_deleting(node, "homes.delete", project, at_home.home)
            left = await tenant.redis.exists(slot.home_members(at_home.home), slot.home_devices(at_home.home))
            assert left == 2
        await forgotten(tenant)
        assert await keys_of(tenant.redis, project, at_home.home) == []
        assert await tenant.redis.exists(slot.deleted_homes) == 0
        # Only invited, and only to this home.
        assert await keys_of(tenant.redis, project, guest) == []
        assert (await tenant.store.devices.locate(project, [device.id]))[device.id].home_id is None


async def user_died(node: NodeProcess, turn: asyncio.Lock) -> None:
    async with tenant_of(node) as tenant:
        async with turn:
            at_home, project = await home_with_members(tenant), tenant.project
            await die_deleting(node, "users.delete", project, at_home.member.id)
            assert await keys_of(tenant.redis, project, at_home.member.id) != []
        await forgotten(tenant)
        assert await keys_of(tenant.redis, project, at_home.member.id) == []
        left = await tenant.redis.hkeys(tenant.slot.home_members(at_home.home))
        assert left == [str(at_home.owner.id).encode()]


async def project_died(node: NodeProcess, turn: asyncio.Lock) -> None:
    async with tenant_of(node) as tenant:
        async with turn:
            await home_with_members(tenant)
            await die_deleting(node, "projects.delete", tenant.project)
            assert len(await keys_of(tenant.redis, tenant.project)) > 10
        await forgotten(tenant)
        assert await keys_of(tenant.redis, tenant.project) == []
        assert await tenant.redis.zscore(DELETED_PROJECTS, str(tenant.project)) is None


async def nobody_died(node: NodeProcess, turn: asyncio.Lock) -> None:
    async with tenant_of(node) as tenant:
        async with turn:
            at_home = await home_with_members(tenant)
            await deleted(tenant, at_home.path, at_home.owner.key)
            assert await tenant.redis.zscore(UNFINISHED, str(tenant.project)) is not None
        await forgotten(tenant)


async def many_homes(node: NodeProcess, turn: asyncio.Lock) -> None:
    async with tenant_of(node) as tenant:
        async with turn:
            user, guest = await tenant.user(), await tenant.user()
            homes = await tenant.homes(user, HOMES_LEFT_AT_ONCE + 5)
            await tenant.store.homes.add_member(tenant.project, homes[0], guest.id)
            await deleted(tenant, f"/users/{user.id}", user.key)
            assert (await tenant.ask("GET", f"/users/{user.id}", user.key)).status == 401
        await forgotten(tenant)
        assert await keys_of(tenant.redis, tenant.project, user.id) == []
        assert await tenant.store.homes.existing(tenant.project, homes) == {homes[0]}


async def test_leftovers_of_dead_process_are_swept_by_node(node: NodeProcess) -> None:
    # They wait at once, for each is waited for some seconds; and begin one after the other, because changes
    # on an overloaded machine are not confirmed.
    turn = asyncio.Lock()
    await asyncio.gather(
        *(each(node, turn) for each in (home_died, user_died, project_died, nobody_died, many_homes))
    )


async def unnoted(node: NodeProcess) -> None:
    """As of a version that knew no notes, or of a Redis that lost one."""
    async with tenant_of(node) as tenant:
        at_home = await home_with_members(tenant)
        await die_deleting(node, "homes.delete", tenant.project, at_home.home)
        await tenant.redis.zrem(UNFINISHED, str(tenant.project))
        await tenant.redis.delete(PATROLLED)
        await swept(at_home)
        assert await tenant.redis.exists(PATROLLED)


async def broken(node: NodeProcess) -> None:
    """A project that cannot be swept."""
    async with tenant_of(node) as tenant:
        at_home, slot = await home_with_members(tenant), tenant.slot
        await tenant.redis.zadd(slot.departing_users, {"not a number": 1})
        await tenant.redis.zadd(UNFINISHED, {"no project": 0, "9" * 5000: 0})
        await die_deleting(node, "homes.delete", tenant.project, at_home.home)

        async def said() -> bool:
            return "housekeeping.failed" in node.logged()

        await eventually(said, WITHIN_S)
        assert await tenant.redis.zscore(UNFINISHED, str(tenant.project)) is not None


async def swept(at_home: HomeWithMembers) -> None:
    """Wait until nothing of a deleted home is left."""
    tombstones = at_home.tenant.slot.deleted_homes

    async def gone() -> bool:
        return not await at_home.tenant.redis.exists(tombstones)

    await eventually(gone, WITHIN_S)


async def test_unnoted_leftovers_are_found_and_broken_ones_stop_no_sweep() -> None:
    with private_node() as node:
        await asyncio.gather(unnoted(node), broken(node))
        # And it runs on.
        assert (await node.metrics())["connections"] == 0


async def test_charges_that_are_over_are_given_back_by_a_patrol() -> None:
    """In a project in which nothing else happens."""
    with private_node() as node:
        async with tenant_of(node) as tenant:
            slot, user = tenant.slot, await tenant.user()
            home = await tenant.home(user)
            before = await tenant.redis.hget(slot.usage, "project:records")
            await tenant.store.provisioning.begin(tenant.project, home, user.id, "lamp", lifetime_ms=1)

            async def given_back() -> bool:
                # A patrol may have been a moment too early.
                await tenant.redis.delete(PATROLLED)
                return bool(await tenant.redis.hget(slot.usage, "project:records") == before)

            await eventually(given_back, WITHIN_S)
