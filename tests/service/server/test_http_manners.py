"""What answers say beside their body: where what was made is, how they are compressed, who may keep them."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import ClientResponse

from kit.client import raw_request, refusal
from kit.node import NodeProcess
from kit.tenant import Tenant

DOCUMENTS: Final = ("/", "/openapi.json", "/docs", "/verifyEmail")


def raw_client(node: NodeProcess) -> aiohttp.ClientSession:
    """One that decompresses nothing and asks for no compression by itself."""
    return aiohttp.ClientSession(node.url, auto_decompress=False, skip_auto_headers=["Accept-Encoding"])


async def fetched(
    node: NodeProcess, path: str, method: str = "GET", **headers: str
) -> tuple[ClientResponse, bytes]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with raw_client(node) as http, http.request(method, path, headers=given) as answer:
        return answer, await answer.read()


def vary(answer: ClientResponse) -> str:
    return ", ".join(answer.headers.getall("Vary", []))


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_document_is_sent_once(node: NodeProcess, path: str) -> None:
    """Then only that it is still the same: for each form by itself."""
    tags = set()
    for accepted in ("", "gzip"):
        answer, body = await fetched(node, path, Accept_Encoding=accepted)
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Accept-Encoding" in vary(answer)
        tag = answer.headers["ETag"]
        tags.add(tag)
        for named in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            again, nothing = await fetched(node, path, Accept_Encoding=accepted, If_None_Match=named)
            assert (again.status, nothing, again.headers["ETag"]) == (304, b"", tag)
        changed, whole = await fetched(node, path, Accept_Encoding=accepted, If_None_Match='"other"')
        assert (changed.status, whole) == (200, body)
    assert len(tags) == (1 if path == "/" else 2)


async def test_root_names_service_without_version(node: NodeProcess) -> None:
    answer, body = await fetched(node, "/")
    found = json.loads(body)
    assert found["name"] == "homewire"
    for path in (found["docs"], found["openapi"], found["health"]):
        assert (await fetched(node, path))[0].status == 200
    assert not any(character.isdigit() for character in body.decode())
    assert answer.headers["Server"] == "homewire"


async def home_with_values(tenant: Tenant, count: int) -> tuple[str, str]:
    """The path of its values, and the key of its owner."""
    user = await tenant.user()
    home = await tenant.home(user)
    for number in range(count):
        assert (await tenant.put(f"/homes/{home}/kv/k{number}", user.key, {"value": "x" * 20_000}))[0] == 204
    return f"/homes/{home}/kv", user.key


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("deflate", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0, deflate;q=0.5", "deflate"),
        ("gzip;q=0", None),
        ("br", None),
        ("identity", None),
        ("gzip;q=x", None),
        ("", None),
    ],
)
async def test_long_answers_are_compressed_as_the_client_likes(
    node: NodeProcess, tenant: Tenant, accepted: str, coding: str | None
) -> None:
    """One value, some in one answer, and a list that is sent in pieces."""
    path, key = await home_with_values(tenant, 5)
    for each in (f"{path}/k1", path):
        plain, expected = await fetched(node, each, Authorization=key)
        assert "Content-Encoding" not in plain.headers
        answer, body = await fetched(node, each, Authorization=key, Accept_Encoding=accepted)
        assert answer.headers.get("Content-Encoding") == coding
        assert unpacked(body, coding) == expected
        assert coding is None or len(body) < len(expected) / 10
        assert answer.headers["Cache-Control"] == "no-store"


def unpacked(body: bytes, coding: str | None) -> bytes:
    if coding == "gzip":
        return gzip.decompress(body)
    return body if coding is None else zlib.decompress(body)


async def test_short_answers_and_cookie_requests_are_not_compressed(
    node: NodeProcess, tenant: Tenant
) -> None:
    """With a cookie a page of another origin could ask, and learn from the lengths of the answers."""
    path, key = await home_with_values(tenant, 1)
    cookie = f"homewire_session={key}"
    for given in (
        {"Cookie": cookie},
        {"Cookie": cookie, "Authorization": key},
    ):
        answer, _ = await fetched(node, f"{path}/k0", Accept_Encoding="gzip", **given)
        assert answer.status == 200
        assert "Content-Encoding" not in answer.headers
    short, _ = await fetched(node, path.removesuffix("/kv"), Authorization=key, Accept_Encoding="gzip")
    assert "Content-Encoding" not in short.headers


async def test_created_resource_has_location(tenant: Tenant) -> None:
    """The path answers, to the same key."""
    user, other = await tenant.user(), await tenant.user()
    admin = await tenant.project_key("admin")
    found = await tenant.store.users.get(tenant.project, other.id)
    assert found is not None

    async def made(path: str, key: str | None, body: Any) -> Any:
        reply = await tenant.ask("POST", path, key, body)
        assert reply.status == 201, reply
        where = reply.headers["Location"]
        assert where.startswith(path + "/")
        if key is not None:
            assert (await tenant.ask("GET", where, key)).status == 200
        return reply.body

    home = (await made("/homes", user.key, {"name": "h"}))["id"]
    member = {"email": found.email}
    assert (await made(f"/homes/{home}/members", user.key, member))["userId"] == other.id
    entities = f"/projects/{tenant.project}/entities"
    await made(entities, admin, {"entityId": "a b/ü%", "entityClass": "room", "homeId": home})
    await made(f"/projects/{tenant.project}/groups", admin, {"name": "g"})
    registered = {
        "projectId": tenant.project,
        "name": "n",
        "email": "new@example.com",
        "password": "long enough 7",
    }
    await made("/users", None, registered)


@pytest.mark.parametrize("spelling", ["0{}", "00{}", "+{}", "{}.0", " {}", "%30{}"])
async def test_id_has_one_spelling(tenant: Tenant, spelling: str) -> None:
    user = await tenant.user()
    home = await tenant.home(user)
    known = await tenant.ask("GET", f"/homes/{home}", user.key)
    other = await tenant.ask("GET", "/homes/999999999", user.key)
    assert known.status == 200
    answer = await raw_request(
        tenant.url,
        f"GET /homes/{spelling.format(home).replace(' ', '%20')} HTTP/1.1\r\nHost: h\r\n"
        f"Authorization: {user.key}\r\n\r\n".encode(),
    )
    assert (answer.status, answer.json()) == (other.status, other.body)


@pytest.mark.parametrize("path", ["/homes/", "/healthz/", "/docs/", "/homes/1/"])
async def test_no_path_ends_with_a_slash(node: NodeProcess, path: str) -> None:
    answer, body = await fetched(node, path)
    assert answer.status == 404
    assert json.loads(body) == {"reason": "NOT_FOUND", "data": {"problem": "no path ends with a slash"}}


async def test_plain_request_to_websocket_path_names_the_upgrade(tenant: Tenant) -> None:
    user = await tenant.user()
    reply = await tenant.ask("GET", "/userSession/websocket", user.key)
    assert (reply.status, reply.headers["Upgrade"]) == (403, "websocket")
    assert "`Upgrade: websocket`" in reply.body["data"]["problem"]
    assert (await refusal(tenant.url, "/userSession/websocket/", user.key)).status == 404


async def test_answers_of_people_and_keys_are_not_kept(tenant: Tenant) -> None:
    user = await tenant.user()
    for method, path, key in (
        ("GET", f"/users/{user.id}", user.key),
        ("GET", f"/homes?userId={user.id}", user.key),
        ("GET", "/nowhere", None),
        ("GET", f"/users/{user.id}", None),
        ("POST", "/session/login-with-token", None),
    ):
        reply = await tenant.ask(method, path, key, {"token": user.key} if method == "POST" else None)
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
