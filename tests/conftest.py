"""Real servers for the service tests: a private embedded Redis, alone and as a cluster of one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.redis.connect import connect
from homewire.redis.embedded import EmbeddedServer
from homewire.repositories import Store
from kit.accounts import TenantWithApp, tenant_with_app
from kit.cluster import running_cluster
from kit.node import CLUSTER, MASTERS, NodeProcess, private_node
from kit.order import longest_first
from kit.redis_server import BusServer, running_server
from kit.tenant import DEFAULT_PROJECT, Tenant, tenant_of
from kit.webhook_receiver import Receiver, receiving

BUSY_NODE_TIMEOUT_MS = 30_000
"""A master that waits for the processor is no failed one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest_first(items)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory with a path short enough for a unix socket, which pytest's own is not everywhere."""
    with tempfile.TemporaryDirectory(prefix="hw-") as directory:
        yield Path(directory)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server() -> AsyncIterator[str]:
    """The URL of a Redis for the whole session. Tests share it: each makes a project of its own."""
    with tempfile.TemporaryDirectory(prefix="hw-") as directory:
        async with EmbeddedServer(Path(directory) / "data", "everysec", cluster=CLUSTER) as server:
            yield server.url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster_server() -> AsyncIterator[str]:
    """The same in cluster mode with all slots on one node: a command across slots fails at once.

    Or on three masters (`HOMEWIRE_TEST_CLUSTER=3`).
    """
    if MASTERS:
        with running_cluster(BUSY_NODE_TIMEOUT_MS) as cluster:
            yield cluster.url
        return
    with tempfile.TemporaryDirectory(prefix="hw-") as directory:
        async with EmbeddedServer(Path(directory) / "data", "everysec", cluster=True) as server:
            yield server.url


@pytest.fixture(params=["cluster"] if CLUSTER else ["alone", "cluster"])
def any_redis(request: pytest.FixtureRequest) -> str:
    """Each test that uses this runs twice: on a Redis alone, and in cluster mode."""
    return str(request.getfixturevalue("redis_server" if request.param == "alone" else "cluster_server"))


@pytest_asyncio.fixture
async def redis_client(any_redis: str) -> AsyncIterator[Redis]:
    """A client of `any_redis`."""
    client = connect(any_redis)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def store(redis_client: Redis) -> Store:
    """The store on `any_redis`."""
    return Store(redis_client, Relay(redis_client, 64))


@pytest.fixture(scope="session")
def node() -> Iterator[NodeProcess]:
    """`homewire run`, as users start it, for the whole session. Each test makes a project of its own.

    The first project has e-mail accounts. It is the project of logins that name none.
    """
    with private_node(cold=True, default_project=DEFAULT_PROJECT) as running:
        asyncio.run(_default_project(running))
        yield running


async def _default_project(node: NodeProcess) -> None:
    async with tenant_of(node) as tenant:
        assert tenant.project == DEFAULT_PROJECT


@pytest_asyncio.fixture
async def tenant(node: NodeProcess) -> AsyncIterator[Tenant]:
    """A project of this test's own on `node`."""
    async with tenant_of(node) as made:
        yield made


@pytest.fixture
def server() -> Iterator[BusServer]:
    """A Redis of this test's own, that can be paused, killed and started again."""
    with running_server() as running:
        yield running


@pytest.fixture
async def redis(server: BusServer) -> AsyncIterator[Redis]:
    """A client of `server`."""
    async with server.client() as client:
        yield client


@pytest_asyncio.fixture
async def by_email(node: NodeProcess) -> AsyncIterator[TenantWithApp]:
    """TenantWithApp by e-mail, in a project of this test's own."""
    async with tenant_with_app(node, "email") as people:
        yield people


@pytest_asyncio.fixture
async def by_phone(node: NodeProcess) -> AsyncIterator[TenantWithApp]:
    """TenantWithApp by phone number, likewise."""
    async with tenant_with_app(node, "phone") as people:
        yield people


@pytest_asyncio.fixture
async def by_key(node: NodeProcess) -> AsyncIterator[TenantWithApp]:
    """TenantWithApp of a project's own, likewise."""
    async with tenant_with_app(node, "byou") as people:
        yield people


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of webhooks."""
    async with receiving() as made:
        yield made
