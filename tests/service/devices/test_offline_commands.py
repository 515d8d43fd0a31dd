"""Commands to a device that is not connected: dropped, or refused as the caller or the project says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import pytest_asyncio

from homewire.projects.models import OfflineCommands
from kit.node import NodeProcess
from kit.presence import World, running_nodes, world_of

OFFLINE = {
    "reason": "DEVICE_OFFLINE",
    "data": {"field": "deviceId", "problem": "the device is not connected"},
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Sequence[NodeProcess]]:
    with running_nodes(2) as (_, running):
        yield running


@pytest_asyncio.fixture
async def world(nodes: Sequence[NodeProcess]) -> AsyncIterator[World]:
    async with world_of(nodes) as made:
        yield made


async def put(world: World, node: int, query: str = "", **headers: str) -> tuple[int, object]:
    """Send a command through a node, as the owner."""
    path = f"/devices/{world.device.id}/command{query}"
    headers = {"Authorization": world.owner.key, **headers}
    async with (
        world.nodes[node].client() as http,
        http.put(path, json={"action": "open"}, headers=headers) as answer,
    ):
        return answer.status, await answer.json() if answer.status != 204 else None


async def test_the_request_says(world: World) -> None:
    before = await world.tenant.stored()
    for node in (0, 1):
        assert await put(world, node) == (204, None), "the default"
        assert await put(world, node, "?offline=drop") == (204, None)
        assert await put(world, node, "?offline=refuse") == (403, OFFLINE)
    # What was refused is not stored.
    assert await world.tenant.stored() == before + 4
    async with await world.connect(0) as socket:
        await world.is_held_by(1)
        for node in (0, 1):
            assert await put(world, node, "?offline=refuse") == (204, None)
            assert await socket.receive_text() == '{"action":"open"}'
    await world.becomes(connected=False)
    assert await put(world, 1, "?offline=refuse") == (403, OFFLINE)


async def test_a_device_at_this_node_is_connected_before_it_is_written_down(world: World) -> None:
    """No handshake waits for its record: the node that answered it knows."""
    for _ in range(3):
        async with await world.connect(0) as socket:
            assert await put(world, 0, "?offline=refuse") == (204, None)
            assert await socket.receive_text() == '{"action":"open"}'


async def test_the_project_says(world: World) -> None:
    configure, project = world.tenant.store.projects.configure, world.tenant.project
    assert await put(world, 0) == (204, None)
    await configure(project, offline_commands=OfflineCommands.REFUSE)
    # Another process changed it: the nodes read so in their streams.
    for node in (0, 1):
        while (answer := await put(world, node)) == (204, None):
            pass
        assert answer == (403, OFFLINE)
        assert await put(world, node, "?offline=drop") == (204, None)
        assert await put(world, node, "?queue=60") == (204, None), "it is kept, and so not lost"
    async with await world.connect(1) as socket:
        assert [await socket.receive_text() for _ in range(2)] == ['{"action":"open"}'] * 2
        await world.is_held_by(1)
        assert await put(world, 0) == (204, None)
        assert await socket.receive_text() == '{"action":"open"}'


@pytest.mark.parametrize("query", ["=", "=yes", "=REFUSE", "=drop&offline=refuse"])
async def test_a_bad_value_names_the_parameter(world: World, query: str) -> None:
    status, answer = await put(world, 0, f"?offline{query}")
    assert (status, answer) == (
        403,
        {"reason": "INVALID_PARAMETER", "data": {"field": "offline", "problem": "must be drop or refuse"}},
    )
