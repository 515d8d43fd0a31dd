"""A process dies in the middle of a change: the change takes effect within two seconds, or never happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from kit.client import CLOSE, Socket, listen
from kit.control_records import copies, dying_store, shards_of, until
from kit.node import NodeProcess
from kit.recovery import (
    EVENTS,
    TIMEOUT_S,
    HomesOnTwoNodes,
    dying_change,
    homes_on_two_nodes,
)
from kit.tenant import Tenant, tenant_of
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


async def close_with(sockets: list[Socket], code: int) -> None:
    """Each is closed with this code, and receives nothing before."""
    for socket in sockets:
        frame = await socket.receive(TIMEOUT_S)
        assert frame.opcode == CLOSE, frame
        assert frame.close_code == code


Change = tuple[
    str,
    Callable[[HomesOnTwoNodes], tuple[Any, ...]],
    Callable[[HomesOnTwoNodes], Awaitable[list[Socket]]],
    int,
]
CHANGES: dict[str, Change] = {
    "member removed": (
        "homes.remove_member",
        lambda site: (site.home, site.user.id),
        lambda site: site.everywhere(site.user, f"?homeId={site.home}"),
        4500,
    ),
    "session ended": (
        "sessions.end",
        lambda site: (site.session,),
        lambda site: site.everywhere(site.user),
        4502,
    ),
    "user deleted": (
        "users.delete",
        lambda site: (site.user.id,),
        lambda site: site.everywhere(site.user),
        4501,
    ),
    "device key rotated": (
        "devices.rotate_key",
        lambda site: (site.device.id,),
        lambda site: site.command_sockets(),
        4502,
    ),
    "device deleted": (
        "devices.delete",
        lambda site: (site.device.id,),
        lambda site: site.command_sockets(),
        4501,
    ),
    "device moved": (
        "devices.move",
        lambda site: (site.device.id, site.other_home),
        lambda site: site.everywhere(site.user, f"?deviceId={site.device.id}"),
        4004,
    ),
    "home deleted": (
        "homes.delete",
        lambda site: (site.home,),
        lambda site: site.everywhere(site.user, f"?homeId={site.home}"),
        4500,
    ),
    "project disabled": (
        "projects.disable",
        lambda site: (),
        lambda site: site.everywhere(site.user),
        4503,
    ),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_change_of_killed_process_reaches_all_sockets(lasting: Processes, name: str) -> None:
    what, arguments, listeners, code = CHANGES[name]
    async with homes_on_two_nodes(lasting) as site:
        sockets = await listeners(site)
        witnesses = await site.everywhere(site.owner) if code != 4503 else []
        given = (site.tenant.project, *arguments(site))
        with dying_change(site.pair.nodes[0].redis_url, "announce", what, *given) as dying:
            await dying.arrives()
            dying.dies()
            await close_with(sockets, code)
        await site.announced()
        for witness in witnesses:
            assert await witness.is_alive()


@pytest.mark.parametrize("step", BEFORE_RECORD)
async def test_change_that_died_before_its_record_never_happened(lasting: Processes, step: str) -> None:
    async with homes_on_two_nodes(lasting) as site:
        sockets = await site.everywhere(site.user, f"?homeId={site.home}")
        given = (site.tenant.project, site.home, site.user.id)
        with dying_change(site.pair.nodes[0].redis_url, step, "homes.remove_member", *given) as dying:
            await dying.arrives()
            dying.dies()
        await site.announced()
        members = await site.tenant.store.homes.members(site.tenant.project, site.home)
        assert site.user.id in {member.user_id for member in members}
        await site.send(site.home, "still")
        for socket in sockets:
            assert await socket.receive_type() == "still"
            assert await socket.is_alive()


@pytest.mark.parametrize("step", AFTER_RECORD)
async def test_change_recorded_before_death_is_announced(lasting: Processes, step: str) -> None:
    """Also if its copies were written and only the outbox still has it: then it is read twice."""
    async with homes_on_two_nodes(lasting) as site:
        sockets = await site.everywhere(site.user, f"?homeId={site.home}&homeId={site.other_home}")
        given = (site.tenant.project, site.home, site.user.id)
        with dying_change(site.pair.nodes[0].redis_url, step, "homes.remove_member", *given) as dying:
            await dying.arrives()
            dying.dies()
        await site.announced()
        await site.send(site.home, "secret")
        await site.send(site.other_home, "open")
        for socket in sockets:
            assert await socket.receive_type() == "open"
            assert await socket.is_alive()


async def test_late_relay_does_not_undo_later_changes(lasting: Processes) -> None:
    """It has read the removal and not yet copied it, when somebody else copies it, and the return."""
    async with homes_on_two_nodes(lasting) as site:
        sockets = await site.everywhere(site.user)
        project, store = site.tenant.project, site.tenant.store
        given = (project, site.home, site.user.id)
        with dying_change(site.pair.nodes[0].redis_url, "copy", "homes.remove_member", *given) as late:
            await late.arrives()
            await store.homes.add_member(*given)
            await site.send(site.home, "back")
            await late.goes_on()
        await site.pair.caught_up()
        await site.send(site.home, "still")
        for socket in sockets:
            assert await socket.receive_type() == "back"
            assert await socket.receive_type() == "still"
            assert await socket.is_alive()


async def test_relay_is_killed_and_another_one_goes_on(processes: Processes) -> None:
    """One node is killed in the middle of others' leftovers; the other node receives and tells."""
    async with homes_on_two_nodes(processes) as site:
        victim, survivor = site.pair.nodes
        async with tenant_of(survivor) as elsewhere:
            guest = await elsewhere.user()
            assert elsewhere.project != site.tenant.project
            own_home = await elsewhere.home(guest)
            calm = await site.stack.enter_async_context(await listen(survivor.url, EVENTS, guest.key))
            sockets = [
                await site.listen(survivor, site.user, f"?homeId={each}")
                for each in (site.home, site.other_home)
            ]
            with ExitStack() as children:
                leftovers = [
                    children.enter_context(
                        dying_change(
                            victim.redis_url,
                            "announce",
                            "homes.remove_member",
                            *(site.tenant.project, each, site.user.id),
                        )
                    )
                    for each in (site.home, site.other_home)
                ]
                for dying in leftovers:
                    await dying.arrives()
                for dying in leftovers:
                    dying.dies()
                victim.process.kill()
                await close_with(sockets, 4500)
            await elsewhere.send({"homeId": own_home, "eventType": "calm"})
            assert await calm.receive_type() == "calm"


async def test_node_relays_leftovers_of_others(node: NodeProcess, tenant: Tenant) -> None:
    owner, guest = await tenant.user(), await tenant.user()
    home = await tenant.home(owner)
    before = await node.metrics()
    await dying_store(tenant.redis).homes.add_member(tenant.project, home, guest.id)

    async def relayed() -> bool:
        return await tenant.redis.xlen(tenant.slot.outbox) == 0

    await until(relayed, TIMEOUT_S)
    about = [copy for copy in await copies(tenant.redis, tenant.project) if copy.user == guest.id]
    assert {copy.shard for copy in about} == shards_of(guest.id, home)
    # Leftovers of other tests' projects count too.
    await node.reaches("relay_late_records_total", before["relay_late_records_total"] + 1)
    after = await node.metrics()
    # The core reads what was written here.
    await node.reaches("envelopes_total", before["envelopes_total"] + len(about))
    assert after["malformed_total"] == before["malformed_total"]
    assert after["relay_records_total"] > before["relay_records_total"]
    assert after["relay_copies_total"] >= before["relay_copies_total"] + len(about)
