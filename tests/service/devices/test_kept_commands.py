"""Commands that wait for a device: `PUT /devices/{id}/command?queue=<seconds>`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgpack
import pytest

from homewire.store.database import wall_clock_ms
from homewire.store.keys import ProjectSlot
from kit.client import Socket
from kit.node import NodeProcess, eventually
from kit.presence import World, running_nodes, world_of

ACTION_AT = 4
"""Where a command's envelope says what it is called."""
MOST, MOST_BYTES = 40, 200_000
FILLING = 500
"""Commands of 30 kB that are enough to fill every buffer of a kernel."""
ROOMY = {"send_queue_bytes": 32 * 1024 * 1024}
"""All of them find room in an outbox: a node that stands still for a while gets them at once."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Sequence[NodeProcess]]:
    with running_nodes(
        2,
        queued_commands=MOST,
        queued_command_bytes=MOST_BYTES,
        presence_lease_s=30,
        user_events_per_s=10_000,
        device_connections=0,
        **ROOMY,
    ) as (_, running):
        yield running


@pytest.fixture
async def world(nodes: Sequence[NodeProcess]) -> AsyncIterator[World]:
    async with world_of(nodes) as made:
        yield made


async def put(
    world: World, action: str, queue: object = 60, parameters: Any = None, **headers: str
) -> tuple[int, Any]:
    """A command of the owner; `queue` None: for a device that is there."""
    path = f"/devices/{world.device.id}/command" + (f"?queue={queue}" if queue is not None else "")
    return await world.tenant.put(
        path, world.owner.key, {"action": action, "parameters": parameters}, **headers
    )


async def queue(world: World, *actions: str) -> None:
    for action in actions:
        assert await put(world, action) == (204, None)


async def receive_many(socket: Socket, count: int) -> list[str]:
    return [(await socket.receive_json())["action"] for _ in range(count)]


async def kept(world: World) -> int:
    """How many commands are kept."""
    return len(await envelopes(world))


async def envelopes(world: World) -> list[bytes]:
    return (await world.tenant.store.queued_commands.read(world.tenant.project, world.device.id))[1]


async def kept_actions(world: World) -> list[int]:
    """What they are called, if that is a number."""
    return [int(msgpack.unpackb(envelope[1:])[ACTION_AT]) for envelope in await envelopes(world)]


async def until_kept(world: World, count: int) -> None:
    async def holds() -> bool:
        return await kept(world) == count

    await eventually(holds)


async def fill(world: World) -> int:
    """Commands of which the kernel takes no more: by now its buffers have grown as far as they do. How many.

    Of a device at the first node that reads nothing.
    """
    big = {"x": "y" * 30_000}
    for sent in range(FILLING):
        if (await world.nodes[0].metrics())["send_queues_bytes"] > 300_000:
            return sent
        assert await put(world, "filling", None, big) == (204, None)
    raise AssertionError("the kernel takes everything")


async def test_they_wait_and_come_first_and_in_order(world: World) -> None:
    await put(world, "dropped", queue=None)
    await queue(world, "1", "2", "3")
    async with await world.connect(0) as socket:
        await put(world, "4", queue=None)
        await queue(world, "5")
        await put(world, "6", queue=None)
        assert await receive_many(socket, 6) == ["1", "2", "3", "4", "5", "6"]
        await until_kept(world, 0)
    slot, device_id = ProjectSlot(world.tenant.project), world.device.id
    left = [slot.device_commands(device_id), slot.device_command_ends(device_id)]
    assert await world.tenant.redis.exists(*left) == 0
    async with await world.connect(1) as socket:
        await put(world, "once", queue=None)
        assert await receive_many(socket, 1) == ["once"]


async def test_a_command_arrives_as_it_was_put(world: World) -> None:
    body = b'{"action": "dim", "parameters": {"level": 12345678901234567890.5, "a": [1e400]}, "other": 1}'
    path = f"/devices/{world.device.id}/command?queue=60"
    assert (await world.tenant.put(path, world.tenant.key, body))[0] == 204
    async with await world.connect() as socket:
        text = await socket.receive_text()
    assert text == '{"action":"dim","parameters":{"level": 12345678901234567890.5, "a": [1e400]}}'


async def test_what_the_kernel_did_not_take_stays(world: World) -> None:
    """A device that reads nothing: its queue is kept, over a new socket as well, until it reads."""
    async with await world.connect(0, receive_buffer=4096) as socket:
        sent = await fill(world)
        await queue(world, "waits", "too")
        assert await kept(world) == 2
        # Nobody waits for the first socket: they are in its outbox, and come on another one all the same.
        async with await world.connect(1) as other:
            assert await receive_many(other, 2) == ["waits", "too"]
        await until_kept(world, 0)
        await queue(world, "last")
        assert await kept(world) == 1
        assert await receive_many(socket, sent + 3) == ["filling"] * sent + ["waits", "too", "last"]
        await until_kept(world, 0)


async def test_a_slow_reader_gets_its_queue_in_order(world: World) -> None:
    parameters = {"x": "y" * 4_000}
    names = [str(number) for number in range(MOST)]
    for name in names:
        assert await put(world, name, 60, parameters) == (204, None)
    async with await world.connect(0, receive_buffer=2048) as socket:
        received = []
        for _ in names:
            received += await receive_many(socket, 1)
        assert received == names
        await until_kept(world, 0)


async def test_what_expired_is_not_delivered(world: World) -> None:
    assert await put(world, "too late", queue=1) == (204, None)
    await queue(world, "in time")
    await until_kept(world, 1)
    async with await world.connect() as socket:
        assert await receive_many(socket, 1) == ["in time"]
        await until_kept(world, 0)


async def test_a_queue_of_expired_commands_goes_by_itself(world: World) -> None:
    assert await put(world, "too late", queue=1) == (204, None)
    slot, device_id = ProjectSlot(world.tenant.project), world.device.id

    async def is_gone() -> bool:
        names = [slot.device_commands(device_id), slot.device_command_ends(device_id)]
        return await world.tenant.redis.exists(*names) == 0

    await eventually(is_gone)


async def test_a_queue_has_bounds(world: World) -> None:
    for number in range(MOST - 1):
        assert await put(world, str(number)) == (204, None)
    assert await put(world, "expires") == (204, None)
    status, answer = await put(world, "one too many")
    assert status == 429
    assert answer["data"] == {"limit": "queued_commands", "most": MOST}
    # What expired makes room. (Its ticket was the last one.)
    ends = ProjectSlot(world.tenant.project).device_command_ends(world.device.id)
    assert await world.tenant.redis.zadd(ends, {str(MOST): wall_clock_ms() - 1}, ch=True) == 1
    assert await kept(world) == MOST - 1
    assert await put(world, "the last") == (204, None)
    async with await world.connect() as socket:
        assert await receive_many(socket, MOST) == [*map(str, range(MOST - 1)), "the last"]
        await until_kept(world, 0)
    for _ in range(3):
        assert await put(world, "big", 60, {"x": "y" * 60_000}) == (204, None)
    status, answer = await put(world, "too big", 60, {"x": "y" * 60_000})
    assert status == 429
    assert answer["data"] == {"limit": "queued_command_bytes", "most": MOST_BYTES}
    await queue(world, "small")


@pytest.mark.parametrize(
    "given", ["0", "-1", "1.5", "", "x", "604801", "1e3", "99999999999999999999", "1&queue=2"]
)
async def test_a_bad_value_names_the_parameter(world: World, given: str) -> None:
    status, answer = await put(world, "x", given)
    assert status == 403
    assert answer["reason"] == "INVALID_PARAMETER"
    assert answer["data"]["field"] == "queue"


async def test_who_may_not_send_a_command_may_not_queue_one(world: World) -> None:
    stranger = await world.tenant.user()
    path = f"/devices/{world.device.id}/command?queue=x"
    assert (await world.tenant.put(path, stranger.key, {"action": "x"}))[0] == 404
    assert (await world.tenant.put(path, world.device.key, {"action": "x"}))[0] == 403
    assert (await world.tenant.put(path, "", {"action": "x"}))[0] == 401
    assert await kept(world) == 0


async def test_a_repeated_request_is_done_once(world: World) -> None:
    for _ in range(2):
        assert await put(world, "once", Idempotency_Key="a") == (204, None)
    status, answer = await put(world, "another", Idempotency_Key="a")
    assert (status, answer["reason"]) == (403, "IDEMPOTENCY_KEY_REUSED")
    await queue(world, "end")
    async with await world.connect() as socket:
        assert await receive_many(socket, 2) == ["once", "end"]
        # It is remembered also when the command is delivered.
        assert await put(world, "once", Idempotency_Key="a") == (204, None)
        await queue(world, "later")
        assert await receive_many(socket, 1) == ["later"]


async def test_the_queue_goes_with_the_home(world: World) -> None:
    """What was meant for a device in one home is not for whoever has it next."""
    await queue(world, "for the old owner")
    tenant = world.tenant
    device = await tenant.store.devices.get(tenant.project, world.device.id)
    assert device is not None
    await tenant.store.devices.leave_home(device)
    assert await kept(world) == 0
    async with await world.connect() as socket:
        assert await socket.is_alive()


async def test_none_is_lost_while_the_device_comes_and_goes(world: World) -> None:
    """Commands at any moment of a device's coming and going: all arrive, in order, hardly one twice."""
    count = 150
    received: list[int] = []
    is_sent = asyncio.Event()

    async def send() -> None:
        for number in range(count):
            status, answer = await put(world, str(number))
            if status == 429:
                await until_kept(world, 0)
                status, answer = await put(world, str(number))
            assert status == 204, answer
        is_sent.set()

    async def come_and_go() -> None:
        turn = 0
        while not (is_sent.is_set() and count - 1 in received):
            turn += 1
            known, before = set(received), len(received)
            waiting = set(await kept_actions(world))
            async with await world.connect(turn % 2) as socket:
                for _ in range(turn % 5 + 1):
                    try:
                        received.append(int((await socket.receive_json(0.3))["action"]))
                    except TimeoutError:
                        break
                    if received[-1] == count - 1:
                        break
                # What the kernel has taken is the device's: it reads all of it before it goes.
                await read_to_the_end(socket)
            come = received[before:]
            assert len(set(come)) == len(come), "one socket gets each once"
            assert (known & set(come)) <= waiting, "what was struck out before does not come again"

    async def read_to_the_end(socket: Socket) -> None:
        await socket.send(8, b"\x03\xe8")
        while (frame := await socket.receive()).opcode == 1:
            received.append(int(frame.payload.split(b'"')[3]))

    await asyncio.gather(send(), come_and_go())
    first = list(dict.fromkeys(received))
    assert first == list(range(count))
    # How soon it is struck out is the nodes' affair, and they may stand still for a while.
    assert len(received) < count * 3


async def test_a_node_killed_with_a_queue_at_hand_loses_nothing() -> None:
    with running_nodes(2, **ROOMY) as (_, nodes):
        async with world_of(nodes) as world:
            socket = await world.connect(0, receive_buffer=4096)
            await fill(world)
            await queue(world, "1", "2")
            nodes[0].process.send_signal(signal.SIGKILL)
            await queue(world, "3")
            async with await world.connect(1) as other:
                assert await receive_many(other, 3) == ["1", "2", "3"]
                await until_kept(world, 0)
            await socket.drop()
