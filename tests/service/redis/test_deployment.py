"""The identity of a deployment: a node refuses an empty Redis, another one, and one with other shards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from kit.client import CLOSE, Socket
from kit.node import NodeProcess, eventually, running_node
from kit.redis_server import BusServer, running_server
from kit.tenant import tenant_of
from kit.warm import run_homewire

EVENTS = "/userSession/websocket"


@pytest.fixture
def server() -> Iterator[BusServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Of a node that remembers which deployment it belongs to."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@contextmanager
def node_on(server: BusServer, data_dir: Path, **settings: Any) -> Iterator[NodeProcess]:
    with running_node(data_dir, redis_url=server.url, **settings) as node:
        yield node


def refusal(server: BusServer, data_dir: Path, **settings: object) -> str:
    """What a node logs that does not start."""
    with ExitStack() as stack, pytest.raises(AssertionError, match="did not start") as refused:
        stack.enter_context(node_on(server, data_dir, **settings))
    return str(refused.value)


def empty(server: BusServer) -> None:
    """Restart it without its data."""
    server.kill()
    shutil.rmtree(server.directory / "appendonlydir")
    server.start()


async def adopt(server: BusServer, data_dir: Path) -> dict[str, str]:
    answer: dict[str, str] = orjson.loads(
        await run_homewire("adopt-redis", "--json", "--redis", server.url, "--data-dir", data_dir)
    )
    return answer


async def test_node_with_other_shards_is_told_the_number(server: BusServer, data_dir: Path) -> None:
    with node_on(server, data_dir):
        assert "set HOMEWIRE_SHARDS=64" in refusal(server, data_dir / "other", shards=32)


async def test_node_refuses_an_empty_redis_until_an_operator_agrees(
    server: BusServer, data_dir: Path
) -> None:
    with node_on(server, data_dir):
        known = (data_dir / "deployment.external.id").read_text().strip()
    empty(server)
    assert f"this node belongs to deployment {known}" in refusal(server, data_dir)
    assert (await adopt(server, data_dir))["replaced"] == known
    with node_on(server, data_dir):
        assert (data_dir / "deployment.external.id").read_text().strip() != known


async def test_node_without_memory_starts_a_deployment(server: BusServer, tmp_path: Path) -> None:
    with node_on(server, tmp_path / "absent"):
        pass
    with node_on(server, tmp_path / "other"):
        pass


def emptied_while_it_runs(server: BusServer) -> None:
    with server.blocking_client() as client:
        client.flushall()


@pytest.mark.parametrize("happen", [empty, emptied_while_it_runs])
async def test_emptied_redis_makes_a_running_node_unready(
    server: BusServer, data_dir: Path, happen: Callable[[BusServer], None]
) -> None:
    with node_on(server, data_dir) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            async with await Socket.open(node.url) as listener:
                await listener.upgrade(EVENTS, user.key)
                happen(server)

                async def status() -> int:
                    return (await tenant.ask("GET", f"/users/{user.id}", user.key)).status

                async def unready() -> bool:
                    async with tenant.http.get("/readyz") as answer:
                        return answer.status == 503

                await eventually(unready)
                assert await status() == 503, "a key that may exist is not called unknown"
                assert (await tenant.ask("POST", "/events", tenant.key, {})).status == 503
                # A subscriber that may have missed something is told so.
                assert (await listener.receive()).opcode == CLOSE

                await adopt(server, data_dir)

                async def unknown() -> bool:
                    return await status() == 401

                await eventually(unknown)


async def test_two_nodes_go_on_after_one_operator_agreed(server: BusServer, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with node_on(server, tmp_path / "one") as one, node_on(server, tmp_path / "two") as two:
        empty(server)

        async def ready(node: NodeProcess) -> bool:
            async with node.client() as http, http.get("/readyz") as answer:
                return answer.status == 200

        async def unready() -> bool:
            return not await ready(one) and not await ready(two)

        await eventually(unready)
        await adopt(server, tmp_path / "one")

        async def both() -> bool:
            return await ready(one) and await ready(two)

        await eventually(both)


async def test_node_refuses_a_redis_that_evicts(data_dir: Path) -> None:
    with running_server("--maxmemory-policy", "allkeys-lru") as server:
        assert "maxmemory-policy noeviction" in refusal(server, data_dir)


async def test_node_refuses_a_replica(server: BusServer, data_dir: Path) -> None:
    with server.blocking_client() as client:
        client.replicaof("127.0.0.1", 1)
    assert "this is a replica" in refusal(server, data_dir)
