"""What was changed through a node holds there from the answer on, however late its tail reads of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accounts_desk import PASSWORD, desk_of
from held_tail import HeldTail, held_tail
from nodes import NodeProcess, private_node, tenant_of

from homewire.model import AccountSystem


@pytest.fixture(scope="module")
def tail(node: NodeProcess) -> Iterator[HeldTail]:
    with held_tail(node.redis_url) as way:
        yield way


@pytest.fixture(scope="module")
def slow(tail: HeldTail) -> Iterator[NodeProcess]:
    """A node whose tail can be kept from reading."""
    with private_node(redis_url=tail.url) as node:
        yield node


@pytest.fixture(autouse=True)
def _let_hear(tail: HeldTail) -> Iterator[None]:
    yield
    tail.may_hear.set()


async def test_a_session_that_was_ended_is_refused(slow: NodeProcess, tail: HeldTail) -> None:
    async with desk_of(slow, AccountSystem.EMAIL) as desk:
        await desk.member("ada@example.com")
        key = (await desk.sign_in(email="ada@example.com", password=PASSWORD)).body["token"]
        ask = desk.tenant.ask
        assert (await ask("GET", "/userSession", key)).status == 200
        tail.may_hear.clear()
        assert (await ask("DELETE", "/userSession", key)).status == 204
        assert (await ask("GET", "/userSession", key)).status == 401


async def test_who_was_removed_from_a_home_sees_it_no_more(slow: NodeProcess, tail: HeldTail) -> None:
    async with tenant_of(slow) as tenant:
        owner, member = await tenant.user(), await tenant.user()
        home = await tenant.home(owner)
        await tenant.store.homes.add_member(tenant.project, home, member.id)
        assert (await tenant.ask("GET", f"/homes/{home}", member.key)).status == 200
        tail.may_hear.clear()
        path = f"/homes/{home}/members/{member.id}"
        assert (await tenant.ask("DELETE", path, owner.key)).status == 204
        assert (await tenant.ask("GET", f"/homes/{home}", member.key)).status in (403, 404)
