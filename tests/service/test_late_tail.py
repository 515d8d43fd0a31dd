"""A node whose tail is late: whom it lets in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from held_tail import HeldTail, held_tail
from nodes import NodeProcess, private_node, tenant_of
from two_homes import PATH
from wire import listen, refusal


@pytest.fixture(scope="module")
def tail(node: NodeProcess) -> Iterator[HeldTail]:
    with held_tail(node.redis_url) as way:
        yield way


@pytest.fixture(scope="module")
def late(tail: HeldTail) -> Iterator[NodeProcess]:
    """A node whose tail can be kept from reading."""
    with private_node(redis_url=tail.url) as node:
        yield node


@pytest.fixture(autouse=True)
def _let_hear(tail: HeldTail) -> Iterator[None]:
    yield
    tail.may_hear.set()


async def test_who_may_hear_a_device_where_it_is_now_is_let_in(late: NodeProcess, tail: HeldTail) -> None:
    """Also where the node remembers it elsewhere, or nowhere."""
    async with tenant_of(late) as tenant:
        user, neighbour = await tenant.user(), await tenant.user()
        home = await tenant.home(user)
        for device in (await tenant.device(None), await tenant.device(await tenant.home(neighbour))):
            path = f"{PATH}?deviceId={device.id}"
            assert (await refusal(late.url, path, user.key)).status == 403
            tail.may_hear.clear()
            await tenant.store.devices.move(tenant.project, device.id, home)
            async with await listen(late.url, path, user.key) as socket:
                assert await socket.is_alive()
            tail.may_hear.set()
