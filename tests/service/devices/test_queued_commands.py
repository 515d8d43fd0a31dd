"""Commands that wait for a device: `PUT /devices/{id}/command?queue=<seconds>`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgpack
import pytest

from kit.client import Socket
from kit.clock import now_ms
from kit.node import NodeProcess, eventually
from kit.presence import WatchedHome, running_nodes, watched_home

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
async def watched(nodes: Sequence[NodeProcess]) -> AsyncIterator[WatchedHome]:
    async with watched_home(nodes) as made:
        yield made


async def put(
    watched: WatchedHome, action: str, queue: object = 60, parameters: Any = None, **headers: str
) -> tuple[int, Any]:
    """A command of the owner; `queue` None: for a device that is there."""
    path = f"/devices/{watched.device.id}/command" + (f"?queue={queue}" if queue is not None else "")
    return await watched.tenant.put(
        path, watched.owner.key, {"action": action, "parameters": parameters}, **headers
    )


async def queue(watched: WatchedHome, *actions: str) -> None:
    for action in actions:
        assert await put(watched, action) == (204, None)


async def receive_many(socket: Socket, count: int) -> list[str]:
    return [(await socket.receive_json())["action"] for _ in range(count)]


async def kept(watched: WatchedHome) -> int:
    """How many commands are kept."""
    return len(await envelopes(watched))


async def envelopes(watched: WatchedHome) -> list[bytes]:
    return (await watched.tenant.store.queued_commands.read(watched.tenant.project, watched.device.id))[1]


async def kept_actions(watched: WatchedHome) -> list[int]:
    """What they are called, if that is a number."""
    return [int(msgpack.unpackb(envelope[1:])[ACTION_AT]) for envelope in await envelopes(watched)]


async def until_kept(watched: WatchedHome, count: int) -> None:
    async def holds() -> bool:
        return await kept(watched) == count

    await eventually(holds)


async def fill(watched: WatchedHome) -> int:
    """Commands of which the kernel takes no more: by now its buffers have grown as far as they do. How many.

    Of a device at the first node that reads nothing.
    """
    big = {"x": "y" * 30_000}
    for sent in range(FILLING):
        if (await watched.nodes[0].metrics())["send_queues_bytes"] > 300_000:
            return sent
        assert await put(watched, "filling", None, big) == (204, None)
    raise AssertionError("the kernel takes everything")


async def test_they_wait_and_come_first_and_in_order(watched: WatchedHome) -> None:
    await put(watched, "dropped", queue=None)
    await queue(watched, "1", "2", "3")
    async with await watched.connect(0) as socket:
        await put(watched, "4", queue=None)
        await queue(watched, "5")
        await put(watched, "6", queue=None)
        assert await receive_many(socket, 6) == ["1", "2", "3", "4", "5", "6"]
        await until_kept(watched, 0)
    slot, device_id = watched.tenant.slot, watched.device.id
    left = [slot.device_commands(device_id), slot.device_command_ends(device_id)]
    assert await watched.tenant.redis.exists(*left) == 0
    async with await watched.connect(1) as socket:
        await put(watched, "once", queue=None)
        assert await receive_many(socket, 1) == ["once"]


async def test_command_arrives_as_it_was_put(watched: WatchedHome) -> None:
    body = b'{"action": "dim", "parameters": {"level": 12345678901234567890.5, "a": [1e400]}, "other": 1}'
    path = f"/devices/{watched.device.id}/command?queue=60"
    assert (await watched.tenant.put(path, watched.tenant.key, body))[0] == 204
    async with await watched.connect() as socket:
        text = await socket.receive_text()
    assert text == '{"action":"dim","parameters":{"level": 12345678901234567890.5, "a": [1e400]}}'


async def test_command_that_kernel_did_not_take_stays_queued(watched: WatchedHome) -> None:
    """A device that reads nothing: its queue is kept, over a new socket as well, until it reads."""
    async with await watched.connect(0, receive_buffer=4096) as socket:
        sent = await fill(watched)
        await queue(watched, "waits", "too")
        assert await kept(watched) == 2
        # Nobody waits for the first socket: they are in its outbox, and come on another one all the same.
        async with await watched.connect(1) as other:
            assert await receive_many(other, 2) == ["waits", "too"]
        await until_kept(watched, 0)
        await queue(watched, "last")
        assert await kept(watched) == 1
        assert await receive_many(socket, sent + 3) == ["filling"] * sent + ["waits", "too", "last"]
        await until_kept(watched, 0)


async def test_slow_reader_gets_its_queue_in_order(watched: WatchedHome) -> None:
    parameters = {"x": "y" * 4_000}
    names = [str(number) for number in range(MOST)]
    for name in names:
        assert await put(watched, name, 60, parameters) == (204, None)
    async with await watched.connect(0, receive_buffer=2048) as socket:
        received = []
        for _ in names:
            received += await receive_many(socket, 1)
        assert received == names
        await until_kept(watched, 0)


async def test_expired_command_is_not_delivered(watched: WatchedHome) -> None:
    assert await put(watched, "too late", queue=1) == (204, None)
    await queue(watched, "in time")
    await until_kept(watched, 1)
    async with await watched.connect() as socket:
        assert await receive_many(socket, 1) == ["in time"]
        await until_kept(watched, 0)


async def test_queue_of_expired_commands_goes_by_itself(watched: WatchedHome) -> None:
    assert await put(watched, "too late", queue=1) == (204, None)
    slot, device_id = watched.tenant.slot, watched.device.id

    async def is_gone() -> bool:
        names = [slot.device_commands(device_id), slot.device_command_ends(device_id)]
        return await watched.tenant.redis.exists(*names) == 0

    await eventually(is_gone)


async def test_queue_has_bounds(watched: WatchedHome) -> None:
    for number in range(MOST - 1):
        assert await put(watched, str(number)) == (204, None)
    assert await put(watched, "expires") == (204, None)
    status, answer = await put(watched, "one too many")
    assert status == 429
    assert answer["data"] == {"limit": "queued_commands", "most": MOST}
    # What expired makes room. (Its ticket was the last one.)
    ends = watched.tenant.slot.device_command_ends(watched.device.id)
    assert await watched.tenant.redis.zadd(ends, {str(MOST): now_ms() - 1}, ch=True) == 1
    assert await kept(watched) == MOST - 1
    assert await put(watched, "the last") == (204, None)
    async with await watched.connect() as socket:
        assert await receive_many(socket, MOST) == [*map(str, range(MOST - 1)), "the last"]
        await until_kept(watched, 0)
    for _ in range(3):
        assert await put(watched, "big", 60, {"x": "y" * 60_000}) == (204, None)
    status, answer = await put(watched, "too big", 60, {"x": "y" * 60_000})
    assert status == 429
    assert answer["data"] == {"limit": "queued_command_bytes", "most": MOST_BYTES}
    await queue(watched, "small")


@pytest.mark.parametrize(
    "given", ["0", "-1", "1.5", "", "x", "604801", "1e3", "99999999999999999999", "1&queue=2"]
)
async def test_bad_value_names_the_parameter(watched: WatchedHome, given: str) -> None:
    status, answer = await put(watched, "x", given)
    assert status == 403
    assert answer["reason"] == "INVALID_PARAMETER"
    assert answer["data"]["field"] == "queue"


async def test_caller_without_command_permission_cannot_queue_one(watched: WatchedHome) -> None:
    stranger = await watched.tenant.user()
    path = f"/devices/{watched.device.id}/command?queue=x"
    assert (await watched.tenant.put(path, stranger.key, {"action": "x"}))[0] == 404
    assert (await watched.tenant.put(path, watched.device.key, {"action": "x"}))[0] == 403
    assert (await watched.tenant.put(path, "", {"action": "x"}))[0] == 401
    assert await kept(watched) == 0


async def test_repeated_request_is_done_once(watched: WatchedHome) -> None:
    for _ in range(2):
        assert await put(watched, "once", Idempotency_Key="a") == (204, None)
    status, answer = await put(watched, "another", Idempotency_Key="a")
    assert (status, answer["reason"]) == (403, "IDEMPOTENCY_KEY_REUSED")
    await queue(watched, "end")
    async with await watched.connect() as socket:
        assert await receive_many(socket, 2) == ["once", "end"]
        # It is remembered also when the command is delivered.
        assert await put(watched, "once", Idempotency_Key="a") == (204, None)
        await queue(watched, "later")
        assert await receive_many(socket, 1) == ["later"]


async def test_queue_goes_with_the_home(watched: WatchedHome) -> None:
    """What was meant for a device in one home is not for its next owner."""
    await queue(watched, "for the old owner")
    tenant = watched.tenant
    device = await tenant.store.devices.get(tenant.project, watched.device.id)
    assert device is not None
    await tenant.store.devices.leave_home(device)
    assert await kept(watched) == 0
    async with await watched.connect() as socket:
        assert await socket.is_alive()


async def test_no_command_is_lost_while_device_reconnects(watched: WatchedHome) -> None:
    """Commands at any moment of a device's coming and going: all arrive, in order, hardly one twice."""
    count = 150
    received: list[int] = []
    is_sent = asyncio.Event()

    async def send() -> None:
        for number in range(count):
            status, answer = await put(watched, str(number))
            if status == 429:
                await until_kept(watched, 0)
                status, answer = await put(watched, str(number))
            assert status == 204, answer
        is_sent.set()

    async def come_and_go() -> None:
        turn = 0
        while not (is_sent.is_set() and count - 1 in received):
            turn += 1
            known, before = set(received), len(received)
            waiting = set(await kept_actions(watched))
            async with await watched.connect(turn % 2) as socket:
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
    await until_kept(watched, 0)


async def test_node_killed_with_a_queue_at_hand_loses_nothing() -> None:
    with running_nodes(2, **ROOMY) as (_, nodes):
        async with watched_home(nodes) as watched:
            socket = await watched.connect(0, receive_buffer=4096)
            await fill(watched)
            await queue(watched, "1", "2")
            nodes[0].process.send_signal(signal.SIGKILL)
            await queue(watched, "3")
            async with await watched.connect(1) as other:
                assert await receive_many(other, 3) == ["1", "2", "3"]
                await until_kept(watched, 0)
            await socket.drop()
