"""The handoff: what is acknowledged after the 101 is delivered, and every edge of the way there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
import pytest_asyncio

from kit.client import CLOSE, PING, PONG, TEXT, Frame, Socket, close_frame, frame, listen
from kit.node import NodeProcess, private_node
from kit.tenant import Tenant, tenant_of

EVENTS = "/userSession/websocket"
STEPS = ["reserve", "authorise", "answer", "adopt"]


@pytest.fixture(scope="module", params=["uvloop", "asyncio", "uvloop tls", "asyncio tls"])
def steps(request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    """A node whose handshakes can be stopped, on either event loop; a taken socket, or one behind a pump."""
    event_loop, _, tls = request.param.partition(" ")
    with private_node(steps=True, event_loop=event_loop, reservation_s=20, tls=bool(tls)) as node:
        yield node


@pytest_asyncio.fixture
async def tenant(steps: NodeProcess) -> AsyncIterator[Tenant]:
    async with tenant_of(steps) as made:
        yield made


async def pause(node: NodeProcess, step: str) -> None:
    node.say(f"pause {step}")
    await node.prints(f"paused {step}")


async def test_event_acknowledged_after_the_101_is_delivered(steps: NodeProcess, tenant: Tenant) -> None:
    """With the adoption a second late: what was routed since the reservation comes first, in order."""
    user = await tenant.user()
    home = await tenant.home(user)
    await pause(steps, "adopt")
    async with await listen(tenant.url, EVENTS, user.key) as socket:
        await steps.prints("at adopt")
        loop = asyncio.get_running_loop()
        until, sent = loop.time() + 1.0, 0
        while loop.time() < until:
            await tenant.send({"homeId": home, "eventType": str(sent)})
            sent += 1
        steps.say("go adopt")
        await tenant.send({"homeId": home, "eventType": "after"})
        received = [await socket.receive_type() for _ in range(sent + 1)]
    assert received == [*map(str, range(sent)), "after"]


async def test_command_acknowledged_after_the_101_is_delivered(steps: NodeProcess, tenant: Tenant) -> None:
    device = await tenant.device(None)
    path = f"/devices/{device.id}/command"
    await pause(steps, "adopt")
    async with await listen(tenant.url, path, device.key) as socket:
        await steps.prints("at adopt")
        assert (await tenant.put(path, tenant.key, {"action": "go"}))[0] == 204
        steps.say("go adopt")
        assert await socket.receive_text() == '{"action":"go"}'


async def test_event_between_reservation_and_answer_is_received(steps: NodeProcess, tenant: Tenant) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    await pause(steps, "authorise")
    async with await Socket.open(tenant.url) as socket:
        await socket.ask(EVENTS, user.key)
        await steps.prints("at authorise")
        await tenant.send({"homeId": home, "eventType": "early"})
        steps.say("go authorise")
        await socket.accepted()
        assert await socket.receive_type() == "early"


@pytest.mark.parametrize("size", [0, 1, 125, 60_000])
async def test_bytes_in_the_segment_of_the_request(tenant: Tenant, size: int) -> None:
    """A ping, or a long message and a ping, right behind the request."""
    user = await tenant.user()
    early = frame(PING, b"x" * size) if size < 126 else frame(TEXT, b"x" * size) + frame(PING, b"behind")
    async with await listen(tenant.url, EVENTS, user.key, early=early) as socket:
        assert await socket.receive() == Frame(PONG, b"x" * size if size < 126 else b"behind")
        assert await socket.is_alive()


async def test_bytes_a_millisecond_after_the_request(tenant: Tenant) -> None:
    user = await tenant.user()
    ping = frame(PING, b"soon after")
    for wait_ms in (0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 5.0):
        async with await Socket.open(tenant.url) as socket:
            await socket.ask(EVENTS, user.key)
            # The moment is what is tested.
            await asyncio.sleep(wait_ms / 1000)
            await socket.send_bytes(ping)
            await socket.accepted()
            assert await socket.receive() == Frame(PONG, b"soon after")


@pytest.mark.parametrize("step", STEPS)
async def test_bytes_at_each_step(steps: NodeProcess, tenant: Tenant, step: str) -> None:
    """A frame in two halves, one of them before the step and one after it."""
    user = await tenant.user()
    ping = frame(PING, b"in two halves")
    await pause(steps, step)
    async with await Socket.open(tenant.url) as socket:
        await socket.ask(EVENTS, user.key, early=ping[:3])
        await steps.prints(f"at {step}")
        await socket.send_bytes(ping[3:7])
        steps.say(f"go {step}")
        await socket.accepted()
        await socket.send_bytes(ping[7:])
        assert await socket.receive() == Frame(PONG, b"in two halves")


async def test_request_in_pieces(tenant: Tenant) -> None:
    user = await tenant.user()
    async with await Socket.open(tenant.url) as socket:
        whole = socket.writer
        pieces: list[bytes] = []
        whole_write, whole.write = whole.write, pieces.append  # type: ignore[method-assign, assignment]
        await socket.ask(EVENTS, user.key, early=frame(PING, b"p"))
        whole.write = whole_write  # type: ignore[method-assign]
        request = b"".join(pieces)
        for at in range(0, len(request), 7):
            await socket.send_bytes(request[at : at + 7])
            await asyncio.sleep(0)
        await socket.accepted()
        assert await socket.receive() == Frame(PONG, b"p")


async def test_half_a_request_takes_nothing(steps: NodeProcess, tenant: Tenant) -> None:
    before = steps.descriptors
    for cut in (1, 10, 60):
        socket = await Socket.open(tenant.url)
        await socket.send_bytes(
            b"GET /userSession/websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"[:cut]
        )
        await socket.drop()
    await steps.settles(before)


@pytest.mark.parametrize("farewell", ["drop", "reset"])
@pytest.mark.parametrize("step", STEPS)
async def test_client_gone_at_each_step_leaves_nothing(
    steps: NodeProcess, tenant: Tenant, step: str, farewell: str
) -> None:
    user = await tenant.user()
    await steps.settles()
    before, reserved = steps.descriptors, (await steps.metrics())["reserved_total"]
    await pause(steps, step)
    for _ in range(5):
        socket = await Socket.open(tenant.url)
        await socket.ask(EVENTS, user.key, early=frame(PING, b"never heard"))
        await steps.prints(f"at {step}")
        await (socket.reset() if farewell == "reset" else socket.drop())
    steps.say(f"go {step}")
    await steps.until("reserved_total", reserved + 5)
    await steps.settles(before)
    async with await listen(tenant.url, EVENTS, user.key) as socket:
        assert await socket.is_alive()
    assert "Traceback" not in steps.logged()


async def test_half_closed_clients_are_let_go(steps: NodeProcess, tenant: Tenant) -> None:
    user = await tenant.user()
    await steps.settles()
    before = steps.descriptors
    await pause(steps, "adopt")
    async with await listen(tenant.url, EVENTS, user.key) as socket:
        await steps.prints("at adopt")
        await socket.say_no_more()
        steps.say("go adopt")
        assert await socket.at_end()
    await steps.settles(before)


async def test_closing_frame_before_the_adoption_is_answered(steps: NodeProcess, tenant: Tenant) -> None:
    user = await tenant.user()
    await pause(steps, "adopt")
    async with await listen(tenant.url, EVENTS, user.key, early=close_frame(1000)) as socket:
        await steps.prints("at adopt")
        steps.say("go adopt")
        assert (await socket.receive()).close_code == 1000
        assert await socket.at_end()


async def test_many_handshakes_at_once_and_descriptors_used_again(steps: NodeProcess, tenant: Tenant) -> None:
    """A recycled descriptor never gets what was meant for the one before."""
    users = [await tenant.user() for _ in range(4)]
    homes = [await tenant.home(user) for user in users]
    for turn in range(5):
        sockets = await asyncio.gather(*(listen(tenant.url, EVENTS, users[n % 4].key) for n in range(40)))
        for socket in sockets[turn::3]:
            await socket.reset()
        again = await asyncio.gather(*(listen(tenant.url, EVENTS, users[n % 4].key) for n in range(20)))
        await tenant.send(*({"homeId": home, "eventType": f"{turn} {n}"} for n, home in enumerate(homes)))
        alive = [(n % 4, socket) for n, socket in enumerate(sockets) if n not in range(turn, 40, 3)]
        for owner, socket in [*alive, *((n % 4, socket) for n, socket in enumerate(again))]:
            assert await socket.receive_type() == f"{turn} {owner}"
            assert await socket.is_alive()
            await socket.drop()


async def test_reservation_that_takes_too_long_is_undone() -> None:
    with private_node(steps=True, reservation_s=4) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            await pause(node, "adopt")
            async with await listen(node.url, EVENTS, user.key) as socket:
                await node.prints("at adopt")
                await node.until("reservations_expired_total", 1)
                node.say("go adopt")
                assert (await socket.receive()).close_code == 1013
                assert await socket.at_end()
            await node.settles()


@pytest.mark.parametrize("event_loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("step", STEPS)
async def test_shutdown_in_the_middle_of_a_handshake(step: str, event_loop: str) -> None:
    """The process ends soon and in order, and the client gets an answer or the end."""
    with private_node(steps=True, event_loop=event_loop, close_s=5) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            async with (
                await listen(node.url, EVENTS, user.key) as settled,
                await Socket.open(node.url) as socket,
            ):
                await pause(node, step)
                await socket.ask(EVENTS, user.key)
                await node.prints(f"at {step}")
                stopping = asyncio.create_task(node.stop())
                farewell = await settled.receive()
                assert (farewell.opcode, farewell.close_code) == (CLOSE, 1001)
                await settled.send_bytes(close_frame(1001))
                await settled.drop()
                # The handshake goes on while the node goes down.
                with suppress(BrokenPipeError):
                    node.say(f"go {step}")
                assert await asyncio.wait_for(stopping, 60) == 0
                if step == "adopt":
                    await socket.accepted()
                    with suppress(asyncio.IncompleteReadError, ConnectionResetError):
                        assert (await socket.receive()).close_code in (1001, 1013)
                assert "Traceback" not in node.log.read_text()
