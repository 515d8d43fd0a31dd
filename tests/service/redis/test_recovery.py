"""A process dies in the middle of a change: it is heard within two seconds, or never happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any, Final

import pytest

from homewire.access_changes.relay import INTERVAL_S, SWEEP_S
from kit.client import CLOSE, Socket, listen
from kit.recovery import EVENTS, HEARD_WITHIN_S, TIMEOUT_S, House, dying_change, house_of
from kit.tenant import tenant_of
from kit.two_nodes import Processes, running_pair

BEFORE_RECORD: Final = ["expect", "record"]
AFTER_RECORD: Final = ["announce", "copy", "delete"]


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Of one test alone: it kills some of them."""
    with running_pair() as started:
        yield started


@pytest.fixture(scope="module")
def lasting() -> Iterator[Processes]:
    """For all tests that let the nodes live."""
    with running_pair() as started:
        yield started


async def close_with(sockets: list[Socket], code: int) -> float:
    """Each is closed with this code, and hears nothing before; when that was."""
    for socket in sockets:
        frame = await socket.receive(TIMEOUT_S)
        assert frame.opcode == CLOSE, frame
        assert frame.close_code == code
    return monotonic()


Change = tuple[str, Callable[[House], tuple[Any, ...]], Callable[[House], Awaitable[list[Socket]]], int]
CHANGES: dict[str, Change] = {
    "member removed": (
        "homes.remove_member",
        lambda house: (house.home, house.user.id),
        lambda house: house.everywhere(house.user, f"?homeId={house.home}"),
        4500,
    ),
    "session ended": (
        "sessions.end",
        lambda house: (house.session,),
        lambda house: house.everywhere(house.user),
        4502,
    ),
    "user deleted": (
        "users.delete",
        lambda house: (house.user.id,),
        lambda house: house.everywhere(house.user),
        4501,
    ),
    "device key rotated": (
        "devices.rotate_key",
        lambda house: (house.device.id,),
        lambda house: house.command_sockets(),
        4502,
    ),
    "device deleted": (
        "devices.delete",
        lambda house: (house.device.id,),
        lambda house: house.command_sockets(),
        4501,
    ),
    "device moved": (
        "devices.move",
        lambda house: (house.device.id, house.other_home),
        lambda house: house.everywhere(house.user, f"?deviceId={house.device.id}"),
        4004,
    ),
    "home deleted": (
        "homes.delete",
        lambda house: (house.home,),
        lambda house: house.everywhere(house.user, f"?homeId={house.home}"),
        4500,
    ),
    "project disabled": (
        "projects.disable",
        lambda house: (),
        lambda house: house.everywhere(house.user),
        4503,
    ),
}


def test_whoever_waits_for_it_here_waits_for_the_look_that_keeps_the_contract() -> None:
    """It comes often enough, and what the tests below wait is far from the next chance: the sweep."""
    assert 2 * INTERVAL_S < HEARD_WITHIN_S
    assert 2 * TIMEOUT_S < SWEEP_S


@pytest.mark.parametrize("name", CHANGES)
async def test_a_process_killed_between_record_and_announcement_leaves_nobody_unaware(
    lasting: Processes, name: str
) -> None:
    what, arguments, listeners, code = CHANGES[name]
    async with house_of(lasting) as house:
        sockets = await listeners(house)
        witnesses = await house.everywhere(house.owner) if code != 4503 else []
        given = (house.tenant.project, *arguments(house))
        with dying_change(house.pair.nodes[0].redis_url, "announce", what, *given) as dying:
            await dying.arrives()
            died = dying.dies()
            assert await close_with(sockets, code) - died < TIMEOUT_S
        await house.announced()
        for witness in witnesses:
            assert await witness.is_alive()


@pytest.mark.parametrize("step", BEFORE_RECORD)
async def test_a_change_that_died_before_its_record_never_happened(lasting: Processes, step: str) -> None:
    async with house_of(lasting) as house:
        sockets = await house.everywhere(house.user, f"?homeId={house.home}")
        given = (house.tenant.project, house.home, house.user.id)
        with dying_change(house.pair.nodes[0].redis_url, step, "homes.remove_member", *given) as dying:
            await dying.arrives()
            dying.dies()
        await house.announced()
        members = await house.tenant.store.homes.members(house.tenant.project, house.home)
        assert house.user.id in {member.user_id for member in members}
        await house.send(house.home, "still")
        for socket in sockets:
            assert await socket.receive_type() == "still"
            assert await socket.is_alive()


@pytest.mark.parametrize("step", AFTER_RECORD)
async def test_a_change_that_died_after_its_record_is_heard(lasting: Processes, step: str) -> None:
    """Also if its copies were written and only the outbox still has it: then it is heard twice."""
    async with house_of(lasting) as house:
        sockets = await house.everywhere(house.user, f"?homeId={house.home}&homeId={house.other_home}")
        given = (house.tenant.project, house.home, house.user.id)
        with dying_change(house.pair.nodes[0].redis_url, step, "homes.remove_member", *given) as dying:
            await dying.arrives()
            died = dying.dies()
        await house.announced()
        assert monotonic() - died < TIMEOUT_S
        await house.send(house.home, "secret")
        await house.send(house.other_home, "open")
        for socket in sockets:
            assert await socket.receive_type() == "open"
            assert await socket.is_alive()


async def test_a_relay_that_wakes_up_late_does_not_undo_what_came_after(lasting: Processes) -> None:
    """It has read the removal and not yet copied it, when somebody else copies it, and the return."""
    async with house_of(lasting) as house:
        sockets = await house.everywhere(house.user)
        project, store = house.tenant.project, house.tenant.store
        given = (project, house.home, house.user.id)
        with dying_change(house.pair.nodes[0].redis_url, "copy", "homes.remove_member", *given) as late:
            await late.arrives()
            await store.homes.add_member(*given)
            await house.send(house.home, "back")
            await late.goes_on()
        await house.pair.caught_up()
        await house.send(house.home, "still")
        for socket in sockets:
            assert await socket.receive_type() == "back"
            assert await socket.receive_type() == "still"
            assert await socket.is_alive()


async def test_the_relay_is_killed_and_another_one_goes_on(processes: Processes) -> None:
    """One node is killed in the middle of others' leftovers; the other node hears and tells."""
    async with house_of(processes) as house:
        victim, survivor = house.pair.nodes
        async with tenant_of(survivor) as elsewhere:
            guest = await elsewhere.user()
            assert elsewhere.project != house.tenant.project
            own_home = await elsewhere.home(guest)
            calm = await house.stack.enter_async_context(await listen(survivor.url, EVENTS, guest.key))
            sockets = [
                await house.listen(survivor, house.user, f"?homeId={each}")
                for each in (house.home, house.other_home)
            ]
            with ExitStack() as children:
                leftovers = [
                    children.enter_context(
                        dying_change(
                            victim.redis_url,
                            "announce",
                            "homes.remove_member",
                            *(house.tenant.project, each, house.user.id),
                        )
                    )
                    for each in (house.home, house.other_home)
                ]
                for dying in leftovers:
                    await dying.arrives()
                for dying in leftovers:
                    dying.dies()
                victim.process.kill()
                died = monotonic()
                assert await close_with(sockets, 4500) - died < TIMEOUT_S
            await elsewhere.send({"homeId": own_home, "eventType": "calm"})
            assert await calm.receive_type() == "calm"
