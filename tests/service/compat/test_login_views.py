"""One login behind three views: what is true of one is true of each, in its own shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from kit.accounts import APP, EMAIL, PASSWORD, PHONE, TenantWithApp, tenant_with_app
from kit.browser import HOSTS, client_of, cookie_of
from kit.node import NodeProcess, private_node
from kit.tenant import Reply

LIMIT: Final = 21
UNKNOWN: Final = "nobody@example.com"


@pytest.fixture(scope="module")
def hosting() -> Iterator[NodeProcess]:
    """A node whose projects have hosts."""
    limits = {"account_attempts": LIMIT, "unknown_network_attempts": 0, "address_attempts": 0}
    with private_node(project_hosts=HOSTS, **limits) as node:
        yield node


@dataclass
class Views:
    """Where somebody may log in to a project."""

    people: TenantWithApp
    http: aiohttp.ClientSession

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> Reply:
        given = {"Host": f"p{self.people.project}.test", **headers}
        async with self.http.post(path, json=body, headers=given) as answer:
            return Reply(answer.status, await answer.json(), answer.headers)

    async def mode(self, name: str, password: str = PASSWORD, **headers: str) -> Reply:
        body = {"projectId": self.people.project, "appId": APP, "email": name, "password": password}
        return await self.post("/auth/user", body, **headers)

    async def sessions_controller(self, name: str, password: str = PASSWORD, **headers: str) -> Reply:
        return await self.post("/session/login", {"login": name, "password": password}, **headers)

    async def rocket_chat(self, name: str, password: str = PASSWORD, **headers: str) -> Reply:
        return await self.post("/api/v1/login", {"user": name, "password": password}, **headers)


View = Callable[..., Any]
VIEWS: Final[tuple[View, ...]] = (Views.mode, Views.sessions_controller, Views.rocket_chat)
COMPAT_APIS: Final = VIEWS[1:]


def key_of(reply: Reply) -> str:
    """The key that a login made."""
    cookie = cookie_of(reply)
    if cookie is not None:
        return cookie.value
    data = reply.body.get("data", reply.body)
    return str(data.get("authToken") or data["token"])


@pytest_asyncio.fixture
async def views(hosting: NodeProcess) -> AsyncIterator[Views]:
    async with tenant_with_app(hosting, "email") as people, client_of(hosting) as http:
        await people.member()
        yield Views(people, http)


async def test_attempts_count_together_however_the_address_is_written(hosting: NodeProcess) -> None:
    async with tenant_with_app(hosting, "email") as people, client_of(hosting) as http:
        views = Views(people, http)
        await people.member("ada@bücher.example")
        spelled = ("ada@bücher.example", "ADA@BÜCHER.example", "ada@xn--bcher-kva.example")
        attempts = list(product(VIEWS, spelled[1:])) * LIMIT
        for view, name in attempts[:LIMIT]:
            assert (await view(views, name, "wrong")).status in (401, 403)
        # At once: each refusal is answered a second later.
        for reply in await asyncio.gather(*(view(views, name) for view in VIEWS for name in spelled)):
            assert reply.status == 429, reply
            assert int(reply.headers["Retry-After"]) > 0
            assert cookie_of(reply) is None


@pytest.mark.parametrize("view", VIEWS)
async def test_login_always_makes_a_new_key(views: Views, view: View) -> None:
    """Nobody gets in by having planted a key before (session fixation), nor is it made good by the login."""
    people = views.people
    mine, planted = key_of(await view(views, EMAIL)), f"v1.{people.project}." + "A" * 43
    other = await people.key_of(await people.member("eve@example.com"))
    for brought in (mine, planted, other):
        for headers in (
            {"Cookie": f"homewire_session={brought}"},
            {"Authorization": f"Bearer {brought}"},
            {"X-Auth-Token": brought, "X-User-Id": "1"},
        ):
            reply = await view(views, EMAIL, **headers)
            assert reply.status in (200, 201), reply
            assert key_of(reply) not in (mine, planted, other)
    assert await people.store.principals.lookup(planted) is None
    # Who was logged in before still is: another browser's session is nobody else's business.
    assert await people.store.principals.lookup(mine) is not None


@pytest.mark.parametrize("view", COMPAT_APIS)
@pytest.mark.parametrize(
    ("name", "password"),
    [
        (EMAIL, "wrong"),
        (UNKNOWN, PASSWORD),
        ("no address", PASSWORD),
        ("a" * 50_000, PASSWORD),
        (EMAIL, "x" * 50_000),
        ("\x00@example.com", "\x00"),
        (EMAIL, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")),
    ],
)
async def test_refused_login_does_not_reveal_known_users(
    views: Views, view: View, name: str, password: str
) -> None:
    reply = await view(views, name, password)
    usual = await view(views, EMAIL, "wrong again")
    assert (reply.status, reply.body) == (usual.status, usual.body)
    assert reply.status == 401
    assert cookie_of(reply) is None


@pytest.mark.parametrize("view", COMPAT_APIS)
async def test_nor_does_its_time(views: Views, view: View) -> None:
    """That of the processor: how long a request waits for one depends on everything else."""
    await views.people.store.users.create(views.people.project, "none", email="without@example.com")
    names = (EMAIL, UNKNOWN, "without@example.com")
    taken: dict[str, list[float]] = {name: [] for name in names}
    node = views.people.node
    for _ in range(9):
        for name in names:
            start = node.processor_s
            await view(views, name, "wrong")
            taken[name].append(node.processor_s - start)
    wrong, *others = (median(taken[name]) for name in names)
    # Hashing is nearly all of it.
    assert all(wrong / 2 < other < wrong * 2 for other in others)


@pytest.mark.parametrize("view", COMPAT_APIS)
async def test_passwords_are_for_projects_with_e_mail_accounts(hosting: NodeProcess, view: View) -> None:
    for accounts in ("phone", "byou"):
        async with tenant_with_app(hosting, accounts) as people, client_of(hosting) as http:
            assert (await view(Views(people, http), PHONE)).status == 401


@pytest.mark.parametrize("view", VIEWS)
async def test_no_secret_of_a_login_is_logged(views: Views, view: View, hosting: NodeProcess) -> None:
    reply = await view(views, EMAIL)
    await view(views, EMAIL, "staple battery")
    logged = hosting.logged()
    for secret in (key_of(reply).rsplit(".")[-1], PASSWORD, "staple battery", EMAIL):
        assert secret not in logged
