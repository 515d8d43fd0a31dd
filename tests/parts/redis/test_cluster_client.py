"""The clients of Redis on a Redis Cluster: slots move and masters fail while commands are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from homewire.access_changes.relay import Relay
from homewire.bus.append import Bus
from homewire.bus.shards import BusError, BusSettings, epoch_key, events_key
from homewire.clock import MACHINE_CLOCK
from homewire.errors import BusUnavailable, NotConfirmed
from homewire.redis.checks import Level, examine_redis
from homewire.redis.connect import ask_each_server, connect, each_server
from homewire.redis.deployment import KEY, Identity
from homewire.redis.pipeline import AutoPipeline
from homewire.redis.servers import Connections
from homewire.store.database import Database
from kit.cluster import ClusterSet, SlotMove, running_cluster, slot_of
from kit.node import CLUSTER, eventually
from kit.redis_processes import TIMEOUT_S
from kit.redis_server import entries_of, envelopes_of

pytestmark = pytest.mark.skipif(CLUSTER, reason="it has its own cluster")

SHARDS = 12


class Program:
    """A script that no server knows yet."""

    def __init__(self, text: str, sha: str) -> None:
        self.text = text
        self.sha = sha


ADD = Program(
    "return redis.call('INCRBY', KEYS[1], ARGV[1]) + redis.call('INCRBY', KEYS[2], ARGV[1])", "0" * 40
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterSet]:
    """Its tests leave all servers running."""
    with running_cluster() as started:
        yield started


@pytest.fixture
async def redis(cluster: ClusterSet) -> AsyncIterator[Redis]:
    client = connect(cluster.url)
    await client.ping()
    for server in cluster.servers:
        if server.role() == "master":
            server.client.flushall()
    yield client
    await client.aclose()


@asynccontextmanager
async def bus_on(cluster: ClusterSet, **settings: Any) -> AsyncIterator[Bus]:
    bus = Bus(BusSettings(cluster.url, SHARDS, connect_timeout=TIMEOUT_S, **settings))
    await bus.start()
    await eventually(lambda: is_connected(bus), TIMEOUT_S)
    try:
        yield bus
    finally:
        await bus.close()


async def is_connected(bus: Bus) -> bool:
    return bus.connected


def half_moved(cluster: ClusterSet, tag: str) -> Any:
    """A slot whose keys are on two servers."""
    return cluster.moving(slot_of(f"{{{tag}}}"))


async def test_commands_go_to_the_server_of_their_slot(redis: Redis) -> None:
    names = [f"{{{number}}}" for number in range(50)]
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, name)
        assert await pipeline.execute() == [True] * 50
    assert await redis.get("{7}") == b"{7}"
    assert {name.decode() async for name in redis.scan_iter("{*")} == set(names)
    sizes = await ask_each_server(redis, "DBSIZE")
    assert len(sizes) == 3
    assert sum(sizes) == 50


async def test_script_is_loaded_on_each_server_that_needs_it(redis: Redis) -> None:
    pipe = AutoPipeline(redis)
    calls = [((f"{{{number}}}a", f"{{{number}}}b"), (number,)) for number in range(50)]
    assert await pipe.run(ADD, *calls) == [2 * number for number in range(50)]


async def test_key_is_found_on_either_server_of_a_moving_slot(cluster: ClusterSet, redis: Redis) -> None:
    reads, writes = AutoPipeline(redis, only_reads=True), AutoPipeline(redis)
    for name in ("{ask}a", "{ask}b"):
        await redis.set(name, name)
    with half_moved(cluster, "ask") as move:
        assert move.move_keys(1) == 1
        assert await reads.ask(("GET", "{ask}a"), ("GET", "{ask}b")) == [b"{ask}a", b"{ask}b"]
        # A key that exists nowhere is made at the target.
        assert await writes.ask(("INCR", "{ask}new")) == [1]
        assert move.target.client.execute_command("CLUSTER", "COUNTKEYSINSLOT", move.slot) == 2
    assert await reads.ask(("GET", "{ask}a"), ("GET", "{ask}new")) == [b"{ask}a", b"1"]
    assert await redis.get("{ask}b") == b"{ask}b"


async def test_concurrent_commands_on_a_moving_slot_each_take_effect_once(
    cluster: ClusterSet, redis: Redis
) -> None:
    pipe = AutoPipeline(redis)
    await redis.set("{many}0", 0)
    with half_moved(cluster, "many"):
        replies = await asyncio.gather(*(pipe.ask(("INCR", f"{{many}}{n % 10}")) for n in range(1000)))
    assert sorted(reply for (reply,) in replies) == [each for each in range(1, 101) for _ in range(10)]
    assert await redis.mget([f"{{many}}{n}" for n in range(10)]) == [b"100"] * 10


async def test_script_on_keys_that_are_apart_is_refused_until_they_are_together(
    cluster: ClusterSet, redis: Redis
) -> None:
    pipe = AutoPipeline(redis)
    for name in ("{apart}a", "{apart}b"):
        await redis.set(name, 1)
    with half_moved(cluster, "apart") as move:
        move.move_keys(1)
        with pytest.raises(ResponseError, match="TRYAGAIN"):
            await pipe.run(ADD, (("{apart}a", "{apart}b"), (1,)))
        waiting = asyncio.create_task(pipe.run(ADD, (("{apart}a", "{apart}b"), (1,))))
        await asyncio.sleep(0)
    # It was repeated until the keys were together, or refused: it never ran with half of them.
    done: Any = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert done == [4] or isinstance(done, ResponseError)
    assert await redis.mget(["{apart}a", "{apart}b"]) == [b"1" if done != [4] else b"2"] * 2


async def test_moved_slot_is_asked_for_at_its_new_server(cluster: ClusterSet, redis: Redis) -> None:
    servers = Connections.of(redis).servers
    await redis.set("{moved}", 1)
    slot = slot_of("{moved}")
    with cluster.moving(slot) as move:
        pass
    assert await redis.incr("{moved}") == 2
    assert servers.redirects[slot] == 1
    moved_to = servers.of_slot(slot)
    assert moved_to is not None
    assert moved_to.address.port == move.target.port
    assert await redis.incr("{moved}") == 3
    assert servers.redirects[slot] == 1


async def test_appends_follow_a_shard_to_another_master(cluster: ClusterSet, redis: Redis) -> None:
    slot = slot_of(events_key(3))
    async with bus_on(cluster) as bus:
        ids = [await bus.append(3, b"before")]
        with cluster.moving(slot) as move:
            # The stream is at the target, and the source says ASK.
            move_all(move)
            ids.append(await bus.append(3, b"meanwhile"))
            many = await bus.append_each([(shard, b"many") for shard in [*range(SHARDS), 3, 3]])
            assert {type(each) for each in many} == {bytes}
            once = await bus.append_once(4, "scope", "print", [b"once"])
        ids += [each for each in (many[3], *many[-2:]) if isinstance(each, bytes)]
        ids.append(await bus.append(3, b"behind"))
        assert await bus.append_once(4, "scope", "print", [b"once"]) == once
    assert [entry for entry, _ in await entries_of(redis, 3)] == ids
    found = await envelopes_of(redis, 3)
    assert found == [b"before", b"meanwhile", *[b"many"] * 3, b"behind"]


def move_all(move: SlotMove) -> None:
    while move.move_keys():
        pass


async def test_master_without_its_data_is_not_used_until_an_operator_agrees(
    cluster: ClusterSet, redis: Redis, tmp_path: Path
) -> None:
    servers = Connections.of(redis).servers
    identity = Identity(SHARDS, tmp_path / "id", in_cluster=True)
    deployment = await identity.establish(redis)
    servers.identity = identity
    emptied = next(each for each in servers.masters() if servers.of_slot(slot_of(KEY)) is not each)
    watching = asyncio.create_task(identity.watch(redis, servers.identity_keys, servers.disconnect))
    key = next(each for each in identity.copies if servers.of_slot(slot_of(each)) is emptied)
    next(each for each in cluster.servers if each.port == emptied.address.port).client.flushall()

    async def is_noticed() -> bool:
        return identity.problem is not None

    await eventually(is_noticed, TIMEOUT_S)
    with pytest.raises(OSError, match="empty or another one"):
        await redis.get(key)
    assert await redis.hget(KEY, "id") == deployment.id.encode()
    async with connect(cluster.url) as operator:
        await Identity(SHARDS, tmp_path / "id", in_cluster=True).adopt(operator)

    async def is_accepted() -> bool:
        return identity.problem is None

    await eventually(is_accepted, TIMEOUT_S)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert await redis.hget(key, "id") == deployment.id.encode()
    servers.identity = None


async def test_master_that_a_redirect_names_is_asked_for_its_deployment(
    cluster: ClusterSet, redis: Redis, tmp_path: Path
) -> None:
    servers = Connections.of(redis).servers
    identity = Identity(SHARDS, tmp_path / "id", in_cluster=True)
    await identity.establish(redis)
    servers.identity = identity
    other, copied = servers.of_slot(slot_of(KEY)), {slot_of(each) for each in identity.copies}
    names = (f"{{{number}}}" for number in range(1000))
    # The redirect tells of no slot that has a copy of the identity.
    key = next(
        each for each in names if servers.of_slot(slot_of(each)) is not other and slot_of(each) not in copied
    )
    await asyncio.to_thread(cluster.until_in_sync)
    await asyncio.to_thread(cluster.fail_over, slot_of(key))
    cluster.master_of(slot_of(key)).client.flushall()
    with pytest.raises(OSError, match="empty or another one"):
        await redis.get(key)
    assert "empty or another one" in (identity.problem or "")
    servers.identity = None


async def test_each_master_is_examined(redis: Redis) -> None:
    await redis.ping()
    findings = await examine_redis(redis, "external")
    assert {each.level for each in findings} <= {Level.OK, Level.WARNING}
    for server in Connections.of(redis).servers.masters()[1:2]:
        other = server.address.port
    async for where, each in each_server(redis):
        if where.endswith(f":{other}"):
            await each.config_set("maxmemory-policy", "allkeys-lru")
    findings = await examine_redis(redis, "external")
    fatal = [each for each in findings if each.level is Level.FATAL]
    await reset_policy(redis)
    assert [each.check for each in fatal] == ["maxmemory-policy"]
    assert fatal[0].seen == f"allkeys-lru (127.0.0.1:{other})"


async def reset_policy(redis: Redis) -> None:
    async for _, each in each_server(redis):
        await each.config_set("maxmemory-policy", "noeviction")


async def test_scan_begins_again_when_its_slot_moves(cluster: ClusterSet, redis: Redis) -> None:
    database = Database(redis, Relay(redis, SHARDS), MACHINE_CLOCK)
    names = {f"{{scan}}{number}" for number in range(100)}
    for name in names:
        await redis.set(name, 1)
    found = set[str]()
    with cluster.moving(slot_of("{scan}")) as move:
        pages = database.scan("{scan}*", 10)
        found.update(each.decode() for each in await anext(pages))
        assert await redis.get("{scan}none") is None
        move_all(move)
    async for page in pages:
        found.update(each.decode() for each in page)
    assert found == names


async def test_entry_that_was_lost_before_its_shard_moved_renews_the_epochs_of_the_new_master(
    cluster: ClusterSet, redis: Redis
) -> None:
    async with bus_on(cluster) as bus:
        await bus.append(3, b"lost")
        source = cluster.master_of(slot_of(events_key(3)))
        source.client.delete(events_key(3))
        with cluster.moving(slot_of(events_key(3))) as move:
            pass
        target = [s for s in range(SHARDS) if cluster.master_of(slot_of(events_key(s))) is move.target]
        for shard in range(SHARDS):
            await redis.set(epoch_key(shard), "first")
        await bus.append(3, b"behind")

        async def is_renewed() -> bool:
            return b"first" not in (await epochs(redis, target) or [b"first"])

        await eventually(is_renewed, TIMEOUT_S)
        others = [shard for shard in range(SHARDS) if shard not in target]
        assert await epochs(redis, others) == [b"first"] * len(others)


async def test_appends_go_on_at_the_replica_of_a_killed_master() -> None:
    with running_cluster() as cluster:
        async with bus_on(cluster) as bus, connect(cluster.url) as redis:
            outcomes = await appends_until(bus, redis, lambda: cluster.kill_master(slot_of(events_key(0))))
            # One that was on its way may be there, too: nothing else, and nothing twice.
            await eventually(lambda: is_written(redis), TIMEOUT_S)
            assert_each_once(outcomes, await stored(redis))


async def test_roles_that_change_lose_no_append() -> None:
    with running_cluster() as cluster:
        async with bus_on(cluster) as bus, connect(cluster.url) as redis:
            outcomes = await appends_until(bus, redis, lambda: cluster.fail_over(slot_of(events_key(0))))
            found = await stored(redis)
            assert_each_once(outcomes, found)
            assert {name for name, outcome in outcomes.items() if isinstance(outcome, bytes)} <= set(found)


async def test_confirmed_entry_that_the_new_master_lacks_renews_the_epochs_of_its_shards() -> None:
    with running_cluster() as cluster:
        async with bus_on(cluster) as bus, connect(cluster.url) as redis:
            for shard in range(SHARDS):
                await redis.set(epoch_key(shard), "first")
            slot = slot_of(events_key(0))
            masters = [cluster.master_of(slot_of(events_key(shard))) for shard in range(SHARDS)]
            mine = [shard for shard in range(SHARDS) if masters[shard] is masters[0]]
            await asyncio.to_thread(cluster.until_in_sync)
            with cluster.without_replication(slot) as master:
                await bus.append(0, b"lost")
                master.kill()
            await asyncio.to_thread(cluster.until_replaced, master, slot)

            async def renewed() -> bool:
                return b"first" not in (await epochs(redis, mine) or [b"first"])

            await eventually(renewed, TIMEOUT_S)
            others = [shard for shard in range(SHARDS) if shard not in mine]
            assert await epochs(redis, others) == [b"first"] * len(others)


async def epochs(redis: Redis, shards: list[int]) -> list[Any] | None:
    try:
        return [await redis.get(epoch_key(shard)) for shard in shards]
    except (RedisError, OSError):
        return None


async def is_written(redis: Redis) -> bool:
    try:
        return bool(await redis.set("{behind}", 1)) and await redis.xlen(events_key(0)) >= 0
    except (RedisError, OSError):
        return False


async def appends_until(bus: Bus, redis: Redis, happen: Any) -> dict[bytes, bytes | BusError]:
    """Append one event after the other to each shard, until something has happened and one is taken again."""
    outcomes: dict[bytes, bytes | BusError] = {}
    happening: asyncio.Task[None] | None = None
    number = 0
    while True:
        for shard in range(SHARDS):
            number += 1
            name = b"%d" % number
            try:
                outcomes[name] = await bus.append(shard, name)
            except (BusUnavailable, NotConfirmed) as error:
                outcomes[name] = error
        taken = all(
            isinstance(outcomes[b"%d" % each], bytes) for each in range(number - SHARDS + 1, number + 1)
        )
        if happening is None:
            happening = asyncio.create_task(asyncio.to_thread(happen))
        elif happening.done() and taken:
            happening.result()
            return outcomes
        await asyncio.sleep(0)


async def stored(redis: Redis) -> list[bytes]:
    return [envelope for shard in range(SHARDS) for envelope in await envelopes_of(redis, shard)]


def assert_each_once(outcomes: dict[bytes, bytes | BusError], found: list[bytes]) -> None:
    assert len(found) == len(set(found))
    refused = {name for name, outcome in outcomes.items() if isinstance(outcome, BusUnavailable)}
    assert not refused & set(found)
