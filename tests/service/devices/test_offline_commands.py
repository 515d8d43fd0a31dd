"""Commands to a device that is not connected: dropped, or refused as the caller or the project says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import pytest_asyncio

from kit.node import NodeProcess
from kit.presence import WatchedHome, running_nodes, watched_home

OFFLINE = {
    "reason": "DEVICE_OFFLINE",
    "data": {"field": "deviceId", "problem": "the device is not connected"},
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Sequence[NodeProcess]]:
    with running_nodes(2) as (_, running):
        yield running


@pytest_asyncio.fixture
async def watched(nodes: Sequence[NodeProcess]) -> AsyncIterator[WatchedHome]:
    async with watched_home(nodes) as made:
        yield made


async def put(watched: WatchedHome, node: int, query: str = "", **headers: str) -> tuple[int, object]:
    """Send a command through a node, as the owner."""
    path = f"/devices/{watched.device.id}/command{query}"
    headers = {"Authorization": watched.owner.key, **headers}
    async with (
        watched.nodes[node].client() as http,
        http.put(path, json={"action": "open"}, headers=headers) as answer,
    ):
        return answer.status, await answer.json() if answer.status != 204 else None


async def test_request_says(watched: WatchedHome) -> None:
    before = await watched.tenant.stored()
    for node in (0, 1):
        assert await put(watched, node) == (204, None), "the default"
        assert await put(watched, node, "?offline=drop") == (204, None)
        assert await put(watched, node, "?offline=refuse") == (403, OFFLINE)
    # What was refused is not stored.
    assert await watched.tenant.stored() == before + 4
    async with await watched.connect(0) as socket:
        await watched.is_held_by(1)
        for node in (0, 1):
            assert await put(watched, node, "?offline=refuse") == (204, None)
            assert await socket.receive_text() == '{"action":"open"}'
    await watched.becomes(connected=False)
    assert await put(watched, 1, "?offline=refuse") == (403, OFFLINE)


async def test_device_at_this_node_is_connected_before_it_is_written_down(watched: WatchedHome) -> None:
    """No handshake waits for its record: the node that answered it knows."""
    for _ in range(3):
        async with await watched.connect(0) as socket:
            assert await put(watched, 0, "?offline=refuse") == (204, None)
            assert await socket.receive_text() == '{"action":"open"}'


async def test_project_says(watched: WatchedHome) -> None:
    assert await put(watched, 0) == (204, None)
    await watched.tenant.refuse_offline_commands()
    # Another process changed it: the nodes read so in their streams.
    for node in (0, 1):
        while (answer := await put(watched, node)) == (204, None):
            pass
        assert answer == (403, OFFLINE)
        assert await put(watched, node, "?offline=drop") == (204, None)
        assert await put(watched, node, "?queue=60") == (204, None), "it is kept, and so not lost"
    async with await watched.connect(1) as socket:
        assert [await socket.receive_text() for _ in range(2)] == ['{"action":"open"}'] * 2
        await watched.is_held_by(1)
        assert await put(watched, 0) == (204, None)
        assert await socket.receive_text() == '{"action":"open"}'


@pytest.mark.parametrize("query", ["=", "=yes", "=REFUSE", "=drop&offline=refuse"])
async def test_bad_value_names_the_parameter(watched: WatchedHome, query: str) -> None:
    status, answer = await put(watched, 0, f"?offline{query}")
    assert (status, answer) == (
        403,
        {"reason": "INVALID_PARAMETER", "data": {"field": "offline", "problem": "must be drop or refuse"}},
    )
