"""Authorise again: what changes at any step of a handshake is refused, or received by the new socket.

Between the look-up and the adoption there is no moment at which a change could slip through: the client
is refused, or gets its 101 and then what every open socket gets. Beside that, when a node trusts what it
remembers: not beyond a key's time, and not when Redis has been silent for a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
import pytest_asyncio

from kit.client import PING, PONG, TEXT, Frame, Refused, Socket, listen, listen_if_allowed, refusal
from kit.clock import a_later_moment, suspended
from kit.node import NodeProcess, eventually, private_node
from kit.tenant import Account, Tenant, tenant_of

EVENTS = "/userSession/websocket"
STEPS = ["reserve", "authorise", "answer", "adopt"]
RESERVED_FOR_GOOD = ["answer", "adopt"]
"""The steps after which no other reservation is made."""


@pytest.fixture(scope="module")
def steps() -> Iterator[NodeProcess]:
    """A node whose handshakes can be stopped."""
    with private_node(steps=True, reservation_s=20) as node:
        yield node


@dataclass
class MemberHome:
    """A home of somebody else with a device, of which a user is a member."""

    tenant: Tenant
    owner: Account
    user: Account
    home: int
    device: Account

    async def add_member(self) -> None:
        await self.tenant.store.homes.add_member(self.tenant.project, self.home, self.user.id)

    async def remove_member(self) -> None:
        await self.tenant.store.homes.remove_member(self.tenant.project, self.home, self.user.id)

    async def end_session(self) -> None:
        session = await self.tenant.store.sessions.of_token(self.user.key)
        assert session is not None
        await self.tenant.store.sessions.end(self.tenant.project, session.id)

    async def delete_user(self) -> None:
        await self.tenant.store.users.delete(self.tenant.project, self.user.id)

    async def rotate_device_key(self) -> None:
        await self.tenant.store.devices.rotate_key(self.tenant.project, self.device.id)

    async def delete_device(self) -> None:
        await self.tenant.store.devices.delete(self.tenant.project, self.device.id)

    async def move_device_away(self) -> None:
        await self.move_device(await self.tenant.home(self.owner))

    async def move_device(self, home: int) -> None:
        await cast(Any, self.tenant.store.devices).move(self.tenant.project, self.device.id, home)

    async def report(self, name: str) -> None:
        """An event for every way of listening to the home, and a command to the device."""
        await self.tenant.send({"homeId": self.home, "entityId": "lamp", "eventType": name})

    async def report_device(self, name: str) -> None:
        await self.tenant.send({"deviceId": self.device.id, "eventType": name})

    async def command(self, name: str) -> None:
        path = f"/devices/{self.device.id}/command"
        status, _ = await self.tenant.put(path, self.tenant.key, {"action": name})
        assert status in (204, 404)


@pytest_asyncio.fixture
async def member_home(steps: NodeProcess) -> AsyncIterator[MemberHome]:
    async with tenant_of(steps) as tenant:
        owner, user = await tenant.user(), await tenant.user()
        home = await tenant.home(owner)
        made = MemberHome(tenant, owner, user, home, await tenant.device(home))
        await made.add_member()
        yield made


Act = Callable[[MemberHome], Awaitable[None]]
Report = Callable[[MemberHome, str], Awaitable[None]]


@dataclass(frozen=True)
class Ending:
    """A change that ends what somebody listens to, and what they are told."""

    query: str
    change: Act
    status: int
    """Of the refusal, if the change is seen before the 101."""
    code: int
    """Of the close frame, if it is seen after."""
    report: Report = MemberHome.report
    older: int | None = None
    """Of the close frame, where that differs, if the change is from before the reservation."""

    def code_at(self, step: str) -> int:
        return self.code if self.older is None or step != "reserve" else self.older


ENDINGS = {
    "membership, homeId": Ending("?homeId={home}", MemberHome.remove_member, 404, 4500, older=4004),
    "membership, deviceId": Ending(
        "?deviceId={device}", MemberHome.remove_member, 404, 4500, MemberHome.report_device, older=4004
    ),
    "session": Ending("", MemberHome.end_session, 401, 4502),
    "session, homeId": Ending("?homeId={home}", MemberHome.end_session, 401, 4502),
    "session, entityId": Ending("?entityId=lamp", MemberHome.end_session, 401, 4502),
    "user": Ending("", MemberHome.delete_user, 401, 4501),
    "device": Ending("?deviceId={device}", MemberHome.delete_device, 404, 4500),
    "device moved away": Ending(
        "?deviceId={device}", MemberHome.move_device_away, 404, 4004, MemberHome.report_device
    ),
}
DEVICE_ENDINGS = {
    "key rotated": Ending("", MemberHome.rotate_device_key, 401, 4502, MemberHome.command),
    "deleted": Ending("", MemberHome.delete_device, 401, 4501, MemberHome.command),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ENDINGS)
async def test_change_at_handshake_step_ends_listener(
    steps: NodeProcess, member_home: MemberHome, step: str, name: str
) -> None:
    ending = ENDINGS[name]
    path = EVENTS + ending.query.format(home=member_home.home, device=member_home.device.id)
    await ends_at(steps, member_home, step, ending, path, member_home.user.key)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", DEVICE_ENDINGS)
async def test_change_at_handshake_step_ends_device_socket(
    steps: NodeProcess, member_home: MemberHome, step: str, name: str
) -> None:
    path = f"/devices/{member_home.device.id}/command"
    await ends_at(steps, member_home, step, DEVICE_ENDINGS[name], path, member_home.device.key)


async def ends_at(
    node: NodeProcess, member_home: MemberHome, step: str, ending: Ending, path: str, key: str
) -> None:
    """A handshake with the change at one step. The key was used before, so the node remembers it."""
    async with await listen(node.url, path, key) as before:
        assert await before.is_alive()
    async with stopped_at(node, step, path, key) as socket:
        # What is recorded in the very millisecond of a reservation counts as from before it.
        await a_later_moment(member_home.tenant)
        await ending.report(member_home, "before")
        await ending.change(member_home)
        if ending.change is not MemberHome.delete_device:
            await ending.report(member_home, "after")
        node.say(f"go {step}")
        types, end = await until_its_end(socket)
    if isinstance(end, int):
        assert end == ending.status
        assert step not in RESERVED_FOR_GOOD
    else:
        assert end.close_code == ending.code_at(step)
    assert "after" not in types
    if step in RESERVED_FOR_GOOD and ending.query != "?deviceId={device}":
        assert types == ["before"], "what was acknowledged before the change was asked for"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("query", ["", "?entityId=lamp"])
async def test_user_removed_from_last_home_at_step_stays_and_receives_nothing(
    steps: NodeProcess, member_home: MemberHome, step: str, query: str
) -> None:
    """A connection that follows the memberships waits for the next one."""
    async with stopped_at(steps, step, EVENTS + query, member_home.user.key) as socket:
        await member_home.remove_member()
        await member_home.report("after")
        steps.say(f"go {step}")
        await socket.accepted()
        await member_home.add_member()
        await member_home.report("again")
        assert await socket.receive_type() == "again"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("query", ["", "?entityId=lamp"])
async def test_user_added_to_home_at_step_receives_its_events(
    steps: NodeProcess, member_home: MemberHome, step: str, query: str
) -> None:
    await member_home.remove_member()
    async with (
        await listen(steps.url, EVENTS, member_home.owner.key) as owner,
        stopped_at(steps, step, EVENTS + query, member_home.user.key) as socket,
    ):
        await member_home.report("before")
        # So the node has read it: what its tail still has before it, a reservation behind the entry receives.
        assert await owner.receive_type() == "before"
        await member_home.add_member()
        await member_home.report("after")
        steps.say(f"go {step}")
        await socket.accepted()
        await member_home.report("later")
        types = [await socket.receive_type()]
        while types[-1] != "later":
            types.append(await socket.receive_type())
    # An event of before the 101 goes with its reservation, if that was found to be another one.
    assert types == ["after", "later"] or (types == ["later"] and step not in RESERVED_FOR_GOOD)


@pytest.mark.parametrize("step", STEPS)
async def test_device_that_moves_to_another_home_of_the_user(
    steps: NodeProcess, member_home: MemberHome, step: str
) -> None:
    """Its listener receives it there, or is told to come back, and then does."""
    new = await member_home.tenant.home(member_home.user)
    path = f"{EVENTS}?deviceId={member_home.device.id}"
    async with stopped_at(steps, step, path, member_home.user.key) as socket:
        await member_home.move_device(new)
        steps.say(f"go {step}")
        await socket.accepted()
        end = await receives_or_ends(socket, member_home)
    if end is not None:
        assert end.close_code == 4004
        async with await listen(steps.url, path, member_home.user.key) as again:
            assert await receives_or_ends(again, member_home) is None


async def receives_or_ends(socket: Socket, member_home: MemberHome) -> Frame | None:
    """None once an event of the device, from where it is now, was received; or the close frame."""
    async with asyncio.timeout(10):
        while True:
            # The node takes events as from the old home until its tail has read that the device moved.
            await member_home.report_device("here")
            await socket.send(PING, b"and now?")
            received = await socket.receive()
            if received.opcode != PONG:
                return None if received.opcode == TEXT else received


async def test_change_of_another_user_disturbs_no_handshake(
    steps: NodeProcess, member_home: MemberHome
) -> None:
    other = await member_home.tenant.user()
    async with stopped_at(steps, "authorise", EVENTS, member_home.user.key) as socket:
        for _ in range(3):
            await member_home.tenant.home(other)
        steps.say("go authorise")
        await socket.accepted()
        await member_home.report("heard")
        assert await socket.receive_type() == "heard"


async def test_expired_key_is_refused_despite_recent_use(node: NodeProcess) -> None:
    """No record announces it, and the node remembers the key for longer."""
    async with tenant_of(node) as tenant:
        user = await tenant.user()
        # An end that does not slide: a use that comes late enough in a short life would move the other one.
        session, key = await tenant.session(user.id, lifetime_s=(3_600, 5))
        async with await listen(node.url, EVENTS, key) as socket:
            assert await socket.is_alive()

        async def over() -> bool:
            return time.time_ns() // 1_000_000 > session.expires_ms

        await eventually(over)
        assert (await refusal(node.url, EVENTS, key)).status == 401


async def test_no_remembered_key_is_trusted_while_redis_hangs() -> None:
    with private_node() as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            device = await tenant.device(await tenant.home(user))
            ways = [(EVENTS, user.key), (f"/devices/{device.id}/command", device.key)]
            for path, key in ways:
                async with await listen(node.url, path, key) as socket:
                    assert await socket.is_alive()
            pid = int((await tenant.redis.info("server"))["process_id"])
            with suspended(pid):

                async def silent() -> bool:
                    async with tenant.http.get("/readyz") as answer:
                        return answer.status == 503

                await eventually(silent)
                # At once, for each waits for Redis as long as it may.
                refusals = (refusal(node.url, path, key) for path, key in ways)
                event = tenant.put(f"/devices/{device.id}/event", device.key, {"eventType": "e"})
                (status, _), *answers = await asyncio.gather(event, *refusals)
                assert status == 503
                for answer in answers:
                    assert (answer.status, "retry-after" in answer.headers) == (503, True)

            async def let_in() -> bool:
                socket = await listen_if_allowed(node.url, EVENTS, user.key)
                if socket is not None:
                    await socket.drop()
                return socket is not None

            await eventually(let_in)


@asynccontextmanager
async def stopped_at(node: NodeProcess, step: str, path: str, key: str) -> AsyncIterator[Socket]:
    """A handshake that has come to `step` and waits there; `go` lets it on."""
    node.say(f"pause {step}")
    await node.prints(f"paused {step}")
    async with await Socket.open(node.url) as socket:
        await socket.ask(path, key)
        await node.prints(f"at {step}")
        yield socket


async def until_its_end(socket: Socket) -> tuple[list[str], int | Frame]:
    """The types of the events, or actions of the commands, before the end; and the end: the status of
    a refusal, or a close frame."""
    try:
        await socket.accepted()
    except Refused as refused:
        return [], refused.answer.status
    types = []
    while (received := await socket.receive()).opcode == TEXT:
        types.append(received.payload.decode().split('"')[3])
    return types, received
