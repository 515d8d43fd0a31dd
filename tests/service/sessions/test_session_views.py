"""One kind of session in four views (specs 000, 002, 003, 004): each shows it, and each ends it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from kit.client import listen
from kit.node import eventually
from kit.tenant import Reply, new_project, project_of
from kit.two_nodes import Processes, running_pair

APP: Final = "controller_app"
PASSWORD: Final = "correct horse"
ADA, EVE = "ada@example.com", "eve@example.com"
CHROME: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/113.0.0.0 Safari/537.36"
)
KEY_ENDED: Final = 4502


@dataclass(frozen=True)
class Service:
    """Two nodes and the only project that there is."""

    processes: Processes
    project: int

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.processes.nodes]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running_pair() as processes:
        yield Service(processes, asyncio.run(seeded(processes)))
        for node in processes.nodes:
            assert "Traceback" not in node.logged()


async def seeded(processes: Processes) -> int:
    async with processes.server.client() as redis:
        views = await new_project(redis)
        store, project = views.store, views.project
        await store.apps.create(project, APP)
        for email in (ADA, EVE):
            await store.users.create(project, "somebody", email=email, password=PASSWORD, verified=True)
        return project


@dataclass(frozen=True)
class Made:
    """A session that somebody opened on the first node, through one of the views."""

    clients: list[aiohttp.ClientSession]
    """Of the nodes. They keep no cookies."""
    project: int
    user: int
    id: str
    key: str

    @property
    def login_token(self) -> str:
        return login_token(self.key)

    async def get(self, node: int, path: str, **headers: str) -> Reply:
        return await ask(self.clients[node], "GET", path, **(headers or {"Authorization": self.key}))

    async def views(self, node: int) -> tuple[Any, Any, Any, Any]:
        """The session as each of the specs shows it: 000, 002, 003, 004."""
        replies = [
            await self.get(node, "/userSession", Authorization=f"ModeCloud {self.key}"),
            await self.get(node, "/session/user", Cookie=f"homewire_session={self.key}"),
            await self.get(node, f"/sessions/{self.id}", Authorization=f"Bearer {self.key}"),
            await self.get(node, f"/api/v1/sessions/info?sessionId={self.id}", **self.rocket_chat),
        ]
        assert [reply.status for reply in replies] == [200] * 4, replies
        mode, controller, ndata, rocket = (reply.body for reply in replies)
        return mode, controller, ndata, rocket

    @property
    def rocket_chat(self) -> dict[str, str]:
        return {"X-User-Id": str(self.user), "X-Auth-Token": self.key}

    async def dead(self, node: int) -> bool:
        """Whether key and cookie are good for nothing on a node."""
        statuses = {
            (await self.get(node, path, **headers)).status
            for path in ("/userSession", "/session/user", "/sessions", "/api/v1/sessions/list")
            for headers in (
                {"Authorization": f"Bearer {self.key}"},
                {"Cookie": f"homewire_session={self.key}"},
                self.rocket_chat,
            )
        }
        return statuses == {401}

    async def end(self, view: str) -> Reply:
        """End it through a view, on the node where it was opened."""
        method, path, headers, body = {
            "000": ("DELETE", "/userSession", {"Authorization": f"ModeCloud {self.key}"}, None),
            "002": ("POST", "/session/logout", {"Cookie": f"homewire_session={self.key}"}, None),
            "003": ("DELETE", f"/sessions/{self.id}", {"Authorization": f"Bearer {self.key}"}, None),
            "004": ("POST", "/api/v1/logout", self.rocket_chat, None),
            "004 logout.me": (
                "POST", "/api/v1/sessions/logout.me", self.rocket_chat, {"sessionId": self.id},
            ),
        }[view]  # fmt: skip
        return await ask(self.clients[0], method, path, body, **headers)


LOGINS: Final = ("000", "002", "004")
"""The views that somebody can log in through: 003 has no login."""
ENDS: Final = {"000": 204, "002": 201, "003": 200, "004": 200, "004 logout.me": 200}
"""The ways to end a session, and what each answers."""


async def ask(
    client: aiohttp.ClientSession, method: str, path: str, body: Any = None, **headers: str
) -> Reply:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.request(method, path, json=body, headers=given) as answer:
        content = await answer.json() if answer.content_type == "application/json" else None
        return Reply(answer.status, content, answer.headers)


def login_token(key: str) -> str:
    """What spec 004 shows of a key."""
    return base64.b64encode(hashlib.sha256(key.encode()).digest()).decode()


@pytest_asyncio.fixture
async def clients(service: Service) -> AsyncIterator[list[aiohttp.ClientSession]]:
    """One for each node."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                aiohttp.ClientSession(
                    url, cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": CHROME}
                )
            )
            for url in service.urls
        ]


async def log_in(service: Service, clients: list[aiohttp.ClientSession], view: str, email: str = ADA) -> Made:
    """A new session, opened through a view."""
    credentials = {"password": PASSWORD}
    match view:
        case "000":
            body = {"projectId": service.project, "appId": APP, "email": email, **credentials}
            reply = await ask(clients[0], "POST", "/auth/user", body)
            key = reply.body["token"]
        case "002":
            reply = await ask(clients[0], "POST", "/session/login", {"login": email, **credentials})
            key = reply.headers["Set-Cookie"].removeprefix("homewire_session=").partition(";")[0]
        case _:
            reply = await ask(clients[0], "POST", "/api/v1/login", {"user": email, **credentials})
            key = reply.body["data"]["authToken"]
    assert reply.status in (200, 201)
    listed = (await ask(clients[1], "GET", "/api/v1/sessions/list?count=0", Authorization=key)).body
    (own,) = [each for each in listed["sessions"] if each["loginToken"] == login_token(key)]
    return Made(clients, service.project, int(own["userId"]), own["sessionId"], key)


def milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


@pytest.mark.parametrize("view", LOGINS)
async def test_session_of_any_view_is_one_object_in_all(
    service: Service, clients: list[aiohttp.ClientSession], view: str
) -> None:
    made = await log_in(service, clients, view)
    for node in (0, 1):
        mode, controller, ndata, rocket = await made.views(node)
        assert mode["projectId"] == service.project
        assert (str(mode["userId"]), made.id) == (rocket["userId"], rocket["_id"])
        assert ndata["sessionId"] == rocket["sessionId"] == made.id
        assert mode["creationTime"] == ndata["startedAt"] == rocket["loginAt"] == rocket["createdAt"]
        assert controller["lastSuccessfulLogin"] == milliseconds(mode["creationTime"])
        assert ndata["lastAccessAt"] == rocket["lastActivityAt"]
        app = {"000": APP, "002": "sessions-controller", "004": "rocket.chat"}[view]
        assert mode["appId"] == ndata["identity"]["envName"] == app
        assert ndata["identity"]["userName"] == ADA
        assert ndata["identity"]["deviceName"] == rocket["device"]["name"] == "Chrome"
        assert ndata["identity"]["authenticationType"] == ("Cookie" if view == "002" else "Bearer")
        assert rocket["loginToken"] == made.login_token
        assert "closedAt" not in rocket


async def test_node_that_a_session_was_made_on_is_named(
    service: Service, clients: list[aiohttp.ClientSession]
) -> None:
    here = [await log_in(service, clients, view) for view in LOGINS]
    there = await log_in(service, clients[::-1], "004")
    names = [(await made.views(0))[3]["instanceId"] for made in (*here, there)]
    assert len(set(names[:-1])) == 1
    assert names[-1] not in names[:-1]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("view", LOGINS)
async def test_end_of_a_session_through_any_view_is_its_end_everywhere(
    service: Service, clients: list[aiohttp.ClientSession], view: str, end: str
) -> None:
    made, other = [await log_in(service, clients, each) for each in (view, "004")]
    for node in (0, 1):
        await made.views(node)
    async with (
        await listen(service.urls[1], "/userSession/websocket", made.key) as socket,
        await listen(service.urls[1], "/userSession/websocket", other.key) as bystander,
    ):
        assert (await made.end(end)).status == ENDS[end]
        assert (await socket.receive()).close_code == KEY_ENDED
        for node in (0, 1):
            await eventually(lambda node=node: made.dead(node))  # type: ignore[misc]
        assert await bystander.is_alive()
    await other.views(1)
    info = (await other.get(1, f"/api/v1/sessions/info?sessionId={made.id}")).body
    assert info["loginAt"] <= info["closedAt"]
    assert (await other.get(1, f"/sessions/{made.id}")).status == 404
    for path, items in (("/sessions", "items"), ("/api/v1/sessions/list?count=0", "sessions")):
        listed = [each["sessionId"] for each in (await other.get(1, path)).body[items]]
        assert made.id not in listed
        assert other.id in listed


@pytest.mark.parametrize("end", ENDS)
async def test_session_in_use_is_ended_by_no_view_until_it_is_let_go(
    service: Service, clients: list[aiohttp.ClientSession], end: str
) -> None:
    made = await log_in(service, clients, "004")
    async with (
        service.processes.server.client() as redis,
        project_of(redis, service.project).leased(made.id),
    ):
        refused = await made.end(end)
        assert refused.status == 409
        assert ("success" in refused.body) == end.startswith("004"), "the error has the shape of its view"
        await made.views(1)
    assert (await made.end(end)).status == ENDS[end]


async def test_session_of_another_user_is_hidden_in_every_view(
    service: Service, clients: list[aiohttp.ClientSession]
) -> None:
    hers = [await log_in(service, clients, view) for view in LOGINS]
    eve = await log_in(service, clients, "004", EVE)
    for made in hers:
        asked = [
            await eve.get(1, f"/sessions/{made.id}"),
            await eve.get(1, f"/api/v1/sessions/info?sessionId={made.id}"),
            await ask(clients[1], "DELETE", f"/sessions/{made.id}", Authorization=eve.key),
            await ask(
                clients[1], "POST", "/api/v1/sessions/logout.me", {"sessionId": made.id}, **eve.rocket_chat
            ),
        ]
        assert [reply.status for reply in asked] == [404] * 4
        stolen = await made.get(1, "/api/v1/sessions/list", X_User_Id=str(eve.user), X_Auth_Token=made.key)
        assert stolen.status == 401
        for path in ("/sessions", "/api/v1/sessions/list?count=0"):
            assert made.id not in str((await eve.get(1, path)).body)
        await made.views(1)


@pytest.mark.parametrize("view", LOGINS)
async def test_no_body_of_any_view_holds_a_key(
    service: Service, clients: list[aiohttp.ClientSession], view: str
) -> None:
    made = await log_in(service, clients, view)
    bodies = [
        *await made.views(0),
        (await made.get(0, "/session/user/details")).body,
        (await made.get(0, "/sessions")).body,
        (await made.get(0, "/api/v1/sessions/list?count=0")).body,
        (await made.get(0, "/auth")).body,
        (await made.end("003")).body,
    ]
    secret = made.key.rpartition(".")[2]
    assert not [body for body in bodies if secret in str(body)]


async def test_key_decides_beside_the_cookie_of_another_session_in_every_view(
    service: Service, clients: list[aiohttp.ClientSession]
) -> None:
    one, other = [await log_in(service, clients, view) for view in ("002", "004")]
    for path in ("/userSession", "/session/user", "/sessions", "/api/v1/sessions/list"):
        for headers in ({"Authorization": f"Bearer {one.key}"}, one.rocket_chat):
            for cookie in (one.key, other.key, "v1.1.dead"):
                assert (await one.get(0, path, **headers, Cookie=f"homewire_session={cookie}")).status == 200
