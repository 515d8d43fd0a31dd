"""Which project a login is for that names none, in each view; and errors of these paths in their shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from kit.accounts import EMAIL, PASSWORD, TenantWithApp, tenant_with_app
from kit.browser import client_of, cookie_of
from kit.node import NodeProcess, private_node, running_node
from kit.tenant import Reply

LOGIN: Final = {"login": EMAIL, "password": PASSWORD}
FROM_NOWHERE: Final = "elsewhere.test"


@pytest.fixture
def alone() -> Iterator[NodeProcess]:
    """A node on a Redis of its own, without a project."""
    with private_node() as node:
        yield node


@contextmanager
def beside(node: NodeProcess, **settings: Any) -> Iterator[NodeProcess]:
    """Another on the same Redis."""
    with running_node(node.data_dir.with_name("beside"), redis_url=node.redis_url, **settings) as other:
        yield other


async def log_in(node: NodeProcess, host: str = FROM_NOWHERE) -> Reply:
    async with (
        client_of(node) as http,
        http.post("/session/login", json=LOGIN, headers={"Host": host}) as answer,
    ):
        return Reply(answer.status, await answer.json(), answer.headers)


async def lands_in(people: TenantWithApp, node: NodeProcess, host: str = FROM_NOWHERE) -> bool:
    """Whether a login at this host opens a session in the project of `people`."""
    users = people.store.users
    user = await users.by_email(people.project, EMAIL)
    assert user is not None
    before = len(await people.store.sessions.of_user(people.project, user.id))
    reply = await log_in(node, host)
    assert reply.status == 201, reply
    cookie = cookie_of(reply)
    assert cookie is not None
    after = await people.store.sessions.of_user(people.project, user.id)
    return len(after) == before + 1 and cookie.value.startswith(f"v1.{people.project}.")


async def test_without_settings_it_is_the_only_one(alone: NodeProcess) -> None:
    refused = await log_in(alone)
    assert (refused.status, refused.reason) == (400, "AMBIGUOUS_PROJECT")
    assert refused.body["data"]["field"] == "Host"
    async with tenant_with_app(alone, "email") as people:
        await people.member()
        assert await lands_in(people, alone)
        async with tenant_with_app(alone, "email") as other:
            await other.member()
            refused = await log_in(alone)
            assert (refused.status, refused.reason) == (400, "AMBIGUOUS_PROJECT")
            assert cookie_of(refused) is None
            # One that nobody can log in to leaves no doubt.
            await other.store.projects.disable(other.project)
            assert await lands_in(people, alone)
            await other.store.projects.enable(other.project)
            await people.store.projects.delete(people.project)
            assert await lands_in(other, alone)


async def test_host_decides_then_the_default(alone: NodeProcess) -> None:
    async with (
        tenant_with_app(alone, "email") as first,
        tenant_with_app(alone, "email") as second,
        tenant_with_app(alone, "email") as third,
    ):
        for people in (first, second, third):
            await people.member()
        hosts = f"a.test={first.project},b.test:8080={second.project},c.test=999999,[::1]={second.project}"
        with beside(alone, project_hosts=hosts, default_project=third.project) as node:
            for host in ("a.test", "A.TEST", "a.test:8080", "a.test:80"):
                assert await lands_in(first, node, host), host
            for host in ("b.test:8080", "[::1]", "[::1]:9"):
                assert await lands_in(second, node, host), host
            for host in ("b.test", "b.test:8081", "x.a.test", "a.test.evil", "", node.url):
                assert await lands_in(third, node, host), host
            refused = await log_in(node, "c.test")
            assert (refused.status, refused.reason) == (400, "UNKNOWN_PROJECT")
            await third.store.projects.disable(third.project)
            refused = await log_in(node, "b.test")
            assert (refused.status, refused.reason) == (400, "UNKNOWN_PROJECT")


@pytest.mark.parametrize("host", ["", "\xff", "a=1", ",", "a" * 5_000, "127.0.0.1:99999"])
async def test_no_host_is_an_error_of_ours(node: NodeProcess, host: str) -> None:
    assert (await log_in(node, host)).status in (400, 401)
