"""Rocket.Chat sessions: what its clients ask, and what they are answered (spec 004)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from kit.client import listen
from kit.node import NodeProcess, running_node
from kit.redis_server import BusServer, running_server
from kit.tenant import new_project, project_of

LISTEN: Final = "/userSession/websocket"
PASSWORD: Final = "correct horse"
EMAIL: Final = "ada@example.com"
CHROME: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/113.0.0.0 Safari/537.36"
)
FIREFOX: Final = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0"
UNAUTHORISED: Final = {
    "status": "error",
    "message": "You must be logged in to do this.",
    "success": False,
    "error": "You must be logged in to do this.",
}
UNKNOWN: Final = {"success": False, "error": "Session not found"}
KEY_ENDED: Final = 4502
ACCOUNT_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Workspace:
    """A node with two projects: `chat.example` has e-mail accounts, `phones.example` phone accounts."""

    server: BusServer
    node: NodeProcess
    project: int


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with running_server() as server, TemporaryDirectory(prefix="hw-") as directory:
        project, phones = asyncio.run(seeded(server))
        hosts = f"chat.example={project},phones.example={phones}"
        data = Path(directory) / "data"
        with running_node(
            data, redis_url=server.url, project_hosts=hosts, account_attempts=ACCOUNT_ATTEMPTS
        ) as node:
            yield Workspace(server, node, project)
            assert "Traceback" not in node.logged()


async def seeded(server: BusServer) -> tuple[int, int]:
    async with server.client() as redis:
        chat, phones = await new_project(redis), await new_project(redis, "phone")
        for email, verified in ((EMAIL, True), ("eve@example.com", True), ("new@example.com", False)):
            await chat.store.users.create(
                chat.project, "Ada", email=email, password=PASSWORD, verified=verified
            )
        return chat.project, phones.project


@dataclass(frozen=True)
class Client:
    """Somebody's client."""

    http: aiohttp.ClientSession
    user: str = ""
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"X-User-Id": self.user, "X-Auth-Token": self.key} if self.key else {}

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and body; `headers` add to, or with None take away from, those of the client."""
        given = {**self.headers, **options.pop("headers", {})}
        headers = {name: value for name, value in given.items() if value is not None}
        async with self.http.request(method, f"/api/v1/{path}", headers=headers, **options) as answer:
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    async def info(self, session: str, **options: Any) -> tuple[int, Any]:
        return await self.ask("GET", "sessions/info", params={"sessionId": session}, **options)

    async def own(self) -> str:
        """The id of its newest session."""
        _, body = await self.ask("GET", "sessions/list")
        return str(body["sessions"][0]["sessionId"])


@pytest_asyncio.fixture
async def anybody(workspace: Workspace) -> AsyncIterator[Client]:
    async with workspace.node.client() as http:
        yield Client(http)


async def logged_in(anybody: Client, email: str = EMAIL, agent: str = CHROME) -> Client:
    headers = {"Host": "chat.example", "User-Agent": agent}
    status, body = await anybody.ask(
        "POST", "login", headers=headers, json={"user": email, "password": PASSWORD}
    )
    assert (status, body["status"]) == (200, "success"), body
    return Client(anybody.http, body["data"]["userId"], body["data"]["authToken"])


@pytest_asyncio.fixture
async def ada(anybody: Client) -> Client:
    """Somebody with no session but this one."""
    made = await logged_in(anybody)
    _, body = await made.ask("GET", "sessions/list", params={"count": 0})
    for session in body["sessions"][1:]:
        await made.ask("POST", "sessions/logout.me", json={"sessionId": session["sessionId"]})
    return made


@pytest.mark.parametrize("body", [{"user": EMAIL}, {"username": EMAIL}, {"email": EMAIL.upper()}])
async def test_login_returns_its_user(anybody: Client, body: dict[str, str]) -> None:
    keys = set()
    for kind in ("json", "data"):
        options: dict[str, Any] = {kind: {**body, "password": PASSWORD}}
        status, answer = await anybody.ask("POST", "login", headers={"Host": "chat.example"}, **options)
        assert (status, answer["status"]) == (200, "success")
        opened = answer["data"]
        assert opened["me"] == {
            "_id": opened["userId"],
            "name": "Ada",
            "username": EMAIL,
            "emails": [{"address": EMAIL, "verified": True}],
            "roles": ["user"],
            "active": True,
        }
        keys.add(opened["authToken"])
    assert len(keys) == 2, "each login has a key of its own"


@pytest.mark.parametrize(
    ("host", "user", "password"),
    [
        ("chat.example", EMAIL, "wrong"),
        ("chat.example", "nobody@example.com", PASSWORD),
        ("chat.example", "no address", PASSWORD),
        ("chat.example", "new@example.com", PASSWORD),
        ("phones.example", "+14155550123", PASSWORD),
    ],
)
async def test_wrong_login_is_not_let_in(anybody: Client, host: str, user: str, password: str) -> None:
    body = {"user": user, "password": password}
    status, answer = await anybody.ask("POST", "login", headers={"Host": host}, json=body)
    assert (status, answer["status"], answer["success"]) == (401, "error", False)
    assert answer["error"] == answer["message"] == "Unauthorized"


@pytest.mark.parametrize(
    ("host", "body"),
    [
        ("chat.example", {"password": PASSWORD}),
        ("chat.example", {"user": EMAIL}),
        ("chat.example", {"user": {"$ne": ""}, "password": PASSWORD}),
        ("chat.example", {"user": EMAIL, "password": {"digest": "00", "algorithm": "sha-256"}}),
        ("chat.example", []),
        ("elsewhere.example", {"user": EMAIL, "password": PASSWORD}),
    ],
)
async def test_contradictory_login_is_refused_by_field(anybody: Client, host: str, body: Any) -> None:
    status, answer = await anybody.ask("POST", "login", headers={"Host": host}, json=body)
    assert (status, answer["success"], answer["errorType"]) == (400, False, "invalid-params")
    assert answer["error"]


async def test_too_many_wrong_passwords_have_to_wait(anybody: Client) -> None:
    body = {"user": "mallory@example.com", "password": "guess"}
    statuses = set()
    for _ in range(ACCOUNT_ATTEMPTS + 1):
        status, answer = await anybody.ask("POST", "login", headers={"Host": "chat.example"}, json=body)
        statuses.add(status)
    assert statuses == {401, 429}
    assert (status, answer["success"], answer["errorType"]) == (429, False, "too-many-requests")


async def test_document_s_example_is_answered_as_in_the_document(ada: Client) -> None:
    session = await ada.own()
    status, body = await ada.info(session)
    assert status == 200
    assert {name: type(value) for name, value in body.items()} == {
        **dict.fromkeys(
            ("_id", "type", "sessionId", "instanceId", "loginToken", "ip", "host", "userId"), str
        ),
        **dict.fromkeys(("mostImportantRole", "searchTerm", "loginAt", "createdAt", "_updatedAt"), str),
        **dict.fromkeys(("day", "month", "year"), int),
        "lastActivityAt": str,
        "device": dict,
        "roles": list,
        "success": bool,
    }
    assert body["device"] == {
        "type": "browser",
        "name": "Chrome",
        "longVersion": "113.0.0.0",
        "os": {"name": "Windows", "version": "10"},
        "version": "113.0.0",
    }
    assert body["success"] is True
    assert (body["host"], body["ip"], body["userId"]) == ("chat.example", "127.0.0.1", ada.user)
    assert body["loginToken"] == base64.b64encode(hashlib.sha256(ada.key.encode()).digest()).decode()
    assert str(uuid.UUID(body["instanceId"])) == body["instanceId"]
    assert len(bytes.fromhex(body["_id"])) == 12


@pytest.mark.parametrize(
    "headers",
    [
        {"X-User-Id": None, "X-Auth-Token": None},
        {"X-User-Id": None},
        {"X-Auth-Token": None},
        {"X-User-Id": "1"},
        {"X-User-Id": "rbAXPnMktTFbNpwtJ"},
        {"X-Auth-Token": "4uBKb3a7jl28SM1uIAiXnqGvg9CBre9FA8cWxp8AaA6"},
        {"X-Auth-Token": ""},
        {"Authorization": "Bearer v1.1." + "A" * 43},
    ],
)
async def test_request_without_right_headers_is_refused(ada: Client, headers: dict[str, str | None]) -> None:
    session = await ada.own()
    assert await ada.info(session, headers=headers) == (401, UNAUTHORISED)
    assert await ada.ask("GET", "sessions/list", headers=headers) == (401, UNAUTHORISED)
    assert await ada.ask("POST", "logout", headers=headers) == (401, UNAUTHORISED)
    end = await ada.ask("POST", "sessions/logout.me", headers=headers, json={"sessionId": session})
    assert end == (401, UNAUTHORISED)
    assert (await ada.info(session))[0] == 200


async def test_key_is_good_in_every_header(ada: Client) -> None:
    without = {"X-User-Id": None, "X-Auth-Token": None}
    session = await ada.own()
    for scheme in ("Bearer ", "ModeCloud ", ""):
        headers = {**without, "Authorization": scheme + ada.key}
        assert (await ada.info(session, headers=headers))[0] == 200


@pytest.mark.parametrize("query", ["", "?sessionId=", "?session_id=1", "?sessionId=" + "a" * 1025])
async def test_missing_session_id_is_a_wrong_parameter(ada: Client, query: str) -> None:
    status, body = await ada.ask("GET", f"sessions/info{query}")
    assert (status, body["success"], body["errorType"]) == (400, False, "invalid-params")
    assert "sessionId" in body["error"]


async def test_session_of_another_user_is_hidden_and_cannot_be_ended(ada: Client, anybody: Client) -> None:
    eve = await logged_in(anybody, "eve@example.com")
    session = await ada.own()
    for wanted in (session, "QoYYFw2t9oKks2niG", "0" * 24, session.upper(), "../" + session, "ä"):
        assert await eve.info(wanted) == (404, UNKNOWN)
        assert await eve.ask("POST", "sessions/logout.me", json={"sessionId": wanted}) == (404, UNKNOWN)
    assert session not in str(await eve.ask("GET", "sessions/list", params={"count": 0}))
    assert (await ada.info(session))[0] == 200


async def test_ended_session_stays_readable_and_cannot_be_ended_again(ada: Client, anybody: Client) -> None:
    other = await logged_in(anybody)
    session = await other.own()
    ended = await ada.ask("POST", "sessions/logout.me", json={"sessionId": session})
    assert ended == (200, {"sessionId": session, "success": True})
    status, body = await ada.info(session)
    assert status == 200
    assert body["loginAt"] <= body["closedAt"] == body["_updatedAt"]
    assert await other.info(session) == (401, UNAUTHORISED)
    _, listed = await ada.ask("GET", "sessions/list", params={"count": 0})
    assert session not in [each["sessionId"] for each in listed["sessions"]]
    again = await ada.ask("POST", "sessions/logout.me", json={"sessionId": session})
    assert again == (404, UNKNOWN)


async def test_logout_ends_key_cookie_and_sockets(workspace: Workspace, anybody: Client) -> None:
    made = await logged_in(anybody)
    async with await listen(workspace.node.url, LISTEN, made.key) as socket:
        answer = await made.ask("POST", "logout")
        assert answer == (200, {"status": "success", "data": {"message": "You've been logged out!"}})
        assert (await socket.receive(5.0)).close_code == KEY_ENDED
    assert await made.ask("POST", "logout") == (401, UNAUTHORISED)
    for headers in ({"Cookie": f"homewire_session={made.key}"}, {"Authorization": made.key}):
        status, _ = await Client(anybody.http).ask("GET", "sessions/list", headers=headers)
        assert status == 401


async def test_list_comes_in_pages_in_the_order_that_is_asked_for(ada: Client, anybody: Client) -> None:
    for agent in (FIREFOX, CHROME, FIREFOX):
        await logged_in(anybody, agent=agent)
    _, whole = await ada.ask("GET", "sessions/list")
    ids = [each["sessionId"] for each in whole["sessions"]]
    assert {name: whole[name] for name in ("count", "offset", "total", "success")} == {
        "count": 4, "offset": 0, "total": 4, "success": True,
    }  # fmt: skip
    times = [each["loginAt"] for each in whole["sessions"]]
    assert times == sorted(times, reverse=True)
    _, some = await ada.ask("GET", "sessions/list", params={"offset": 1, "count": 2})
    assert [each["sessionId"] for each in some["sessions"]] == ids[1:3]
    assert (some["count"], some["offset"], some["total"]) == (2, 1, 4)
    _, past = await ada.ask("GET", "sessions/list", params={"offset": 9})
    assert (past["sessions"], past["count"], past["total"]) == ([], 0, 4)
    _, found = await ada.ask(
        "GET", "sessions/list", params={"filter": "FIREFOX", "sort": '{"device.name":1,"sessionId":-1}'}
    )
    firefoxes = {each["sessionId"] for each in whole["sessions"] if each["device"]["name"] == "Firefox"}
    assert [each["sessionId"] for each in found["sessions"]] == sorted(firefoxes, reverse=True)
    assert (len(firefoxes), found["total"]) == (2, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("offset", value) for value in ("-1", "x", "1.5", str(2**80))),
        *(("count", value) for value in ("-1", "many")),
        *(("sort", value) for value in ("", "nonsense", '{"loginAt":0}', '{"loginToken":1}', "{" * 900)),
        ("filter", "x" * 1025),
        ("sort", "x" * 5000),
    ],
)
async def test_list_with_bad_values_is_refused(ada: Client, name: str, value: str) -> None:
    status, body = await ada.ask("GET", "sessions/list", params={name: value})
    assert (status, body["success"], body["errorType"]) == (400, False, "invalid-params")
    assert name in body["error"]


async def test_no_answer_but_that_of_the_login_has_the_key(ada: Client) -> None:
    session = await ada.own()
    answers = [
        await ada.info(session),
        await ada.ask("GET", "sessions/list"),
        await ada.ask("POST", "sessions/logout.me", json={"sessionId": "0" * 24}),
        await ada.ask("POST", "logout"),
    ]
    assert ada.key.rpartition(".")[2] not in str(answers)


async def test_session_in_use_is_not_ended_until_it_is_let_go(workspace: Workspace, ada: Client) -> None:
    session = await ada.own()
    async with workspace.server.client() as redis, project_of(redis, workspace.project).leased(session):
        for path, body in (("sessions/logout.me", {"sessionId": session}), ("logout", None)):
            status, answer = await ada.ask("POST", path, json=body)
            assert (status, answer["success"]) == (409, False)
        assert (await ada.info(session))[0] == 200
    assert (await ada.ask("POST", "logout"))[0] == 200
