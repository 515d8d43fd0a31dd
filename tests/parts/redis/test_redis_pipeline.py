"""Commands of one turn share a write: everybody gets their own reply, whatever happens to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from homewire.access_changes.relay import Relay
from homewire.devices.models import Device
from homewire.errors import Unavailable
from homewire.projects.models import AccountSystem, KeyScope
from homewire.redis.connect import connect
from homewire.redis.pipeline import AutoPipeline
from homewire.redis.server_pipeline import COMMAND_S, MAX_COMMANDS_PER_WRITE, MAX_CONNECTIONS
from homewire.repositories import Store
from homewire.store.keys import ProjectSlot
from kit.manual_clock import LoopTime, loop_time
from kit.redis_server import BusServer, running_server

PLENTY = 3 * MAX_COMMANDS_PER_WRITE
LATE_S = 1.75 * COMMAND_S
"""Less than twice a command's time, which who waited for a line and then for an answer would have taken; and
more than once, by more than a machine stands still."""


@pytest.fixture
def server() -> Iterator[BusServer]:
    with running_server() as started:
        yield started


@pytest_asyncio.fixture
async def client(server: BusServer) -> AsyncIterator[Redis]:
    redis = connect(server.url)
    yield redis
    await redis.aclose()


async def fill(redis: Redis, count: int) -> list[tuple[str, str]]:
    """The commands that read `count` values, each of which is its number."""
    # In one slot, which a cluster asks of a pipeline of redis-py.
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.set(f"{{reads}}:{number}", number)
        await pipeline.execute()
    return [("GET", f"{{reads}}:{number}") for number in range(count)]


async def reads_of_server(redis: Redis) -> int:
    """How often the server read from a socket."""
    return int((await redis.info("stats"))["total_reads_processed"])


async def test_reads_of_one_turn_are_one_write(client: Redis) -> None:
    commands, reads = await fill(client, 200), AutoPipeline(client)
    await asyncio.gather(*(reads.ask(command) for command in commands[:2]))
    before = await reads_of_server(client)
    replies = await asyncio.gather(*(reads.ask(command) for command in commands))
    # One is that of the question itself.
    assert await reads_of_server(client) - before <= 3
    assert replies == [[b"%d" % number] for number in range(200)]


async def test_each_request_gets_its_own_reply(client: Redis) -> None:
    commands, reads = await fill(client, PLENTY), AutoPipeline(client)

    async def some(start: int) -> None:
        for at in range(start, start + 20):
            mine = [(at * step) % PLENTY for step in (1, 7, 11)]
            assert await reads.ask(*(commands[number] for number in mine)) == [b"%d" % it for it in mine]

    await asyncio.gather(*(some(start) for start in range(PLENTY)), reads.ask(*commands))
    clients = await client.client_list()
    assert len(clients) <= MAX_CONNECTIONS + 1


async def test_error_is_only_the_callers_own(client: Redis) -> None:
    commands, reads = await fill(client, 3), AutoPipeline(client)
    outcomes: list[object] = await asyncio.gather(
        reads.ask(commands[1]),
        reads.ask(commands[0], ("HGETALL", commands[0][1])),
        reads.ask(commands[2]),
        return_exceptions=True,
    )
    assert (outcomes[0], outcomes[2]) == ([b"1"], [b"2"])
    assert isinstance(outcomes[1], ResponseError)


async def test_cancelled_request_disturbs_no_other(client: Redis) -> None:
    commands, reads = await fill(client, 50), AutoPipeline(client)
    for turns in range(4):
        tasks = [asyncio.create_task(reads.ask(command)) for command in commands]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        assert replies[1::2] == [[b"%d" % number] for number in range(1, 50, 2)]
        assert await reads.ask(commands[7]) == [b"7"]


async def test_command_cancelled_during_connect_is_not_sent(server: BusServer, client: Redis) -> None:
    """It would arrive behind what the caller did since."""
    await client.config_set("requirepass", "secret")
    with_password = connect(server.url.replace("unix://", "unix://:secret@"))
    changes = AutoPipeline(with_password)
    # A new line begins with AUTH, which is not answered.
    server.hang()
    try:
        asked = asyncio.create_task(changes.ask(("INCR", "given up")))
        for _ in range(10):
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    finally:
        server.go_on()
    for _ in range(20):
        assert await changes.ask(("GET", "given up")) == [None]
    await with_password.aclose()


async def test_script_that_the_server_does_not_know_is_sent_whole(client: Redis) -> None:
    store = Store(client, Relay(client, 64))
    project = await store.projects.create("p", AccountSystem.EMAIL)
    _, key = await store.project_keys.create(project.id, "k", {KeyScope.READ})
    await client.script_flush()
    found = await asyncio.gather(*(store.principals.lookup(key) for _ in range(20)))
    assert {each is not None and each.name for each in found} == {"k"}


async def test_hanging_server_times_out_without_mixing_replies(server: BusServer, client: Redis) -> None:
    store = Store(client, Relay(client, 64))
    project = await store.projects.create("p", AccountSystem.EMAIL)
    devices = [(await store.devices.create(project.id, f"class {number}"))[0] for number in range(40)]
    server.hang()
    try:
        async with loop_time() as passed:
            late = (_refused(0.05 * number, store, device, passed) for number, device in enumerate(devices))
            waits = await asyncio.gather(*late)
    finally:
        server.go_on()
    assert max(waits) < LATE_S
    found = await asyncio.gather(*(store.devices.get(project.id, device.id) for device in devices))
    assert found == devices


async def _refused(later_s: float, store: Store, device: Device, passed: LoopTime) -> float:
    """How many seconds of `passed` a request waits that is made `later_s` from now."""
    # Spread over time: some wait for a connection, and none for longer than a command may take.
    await asyncio.sleep(later_s)
    began = passed.seconds
    with pytest.raises(Unavailable):
        await store.devices.get(device.project_id, device.id)
    return passed.seconds - began


async def test_server_that_was_killed_and_came_back(server: BusServer, client: Redis) -> None:
    store = Store(client, Relay(client, 64))
    project = await store.projects.create("p", AccountSystem.EMAIL)
    device = (await store.devices.create(project.id, "lamp"))[0]
    server.kill()
    outcomes = await asyncio.gather(
        *(store.devices.get(project.id, device.id) for _ in range(20)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    server.start()
    assert await store.devices.get(project.id, device.id) == device
    assert await client.exists(ProjectSlot(project.id).device(device.id)) == 1
