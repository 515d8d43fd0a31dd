"""What browsers need so that a page of another origin may call."""

from __future__ import annotations

import pytest
from aiohttp import ClientResponse

from kit.client import raw_request
from kit.node import NodeProcess, private_node
from kit.tenant import Tenant

ORIGIN = {"Origin": "https://app.example.com"}


def exposed(answer: ClientResponse) -> set[str]:
    return set(answer.headers["Access-Control-Expose-Headers"].split(", "))


@pytest.mark.parametrize("headers", [ORIGIN, {}])
async def test_every_answer_may_be_read(node: NodeProcess, tenant: Tenant, headers: dict[str, str]) -> None:
    """One that worked, one of each kind of error: of a handler, of the key, of routing."""
    owner = await tenant.user()
    home = await tenant.home(owner)
    device = await tenant.device(home)
    event = {"eventType": "e"}
    cases = [
        ("PUT", f"/devices/{device.id}/event", device.key, event, 204),
        ("PUT", f"/devices/{device.id}/event", device.key, {}, 403),
        ("PUT", f"/devices/{device.id}/event", "nobody", event, 401),
        ("GET", f"/homes/{home}", owner.key, None, 200),
        ("GET", "/nowhere", owner.key, None, 404),
        ("PROPFIND", f"/homes/{home}", owner.key, None, 405),
    ]
    for method, path, key, body, status in cases:
        given = {**headers, "Authorization": key}
        async with tenant.http.request(method, path, json=body, headers=given) as answer:
            assert answer.status == status, path
            assert answer.headers.getall("Access-Control-Allow-Origin") == ["*"]
            assert "Access-Control-Allow-Credentials" not in answer.headers
            if status != 204:
                assert exposed(answer) >= {"vnd.tinkermode.range", "Retry-After", "Location"}


async def test_malformed_http_is_refused_readably(node: NodeProcess) -> None:
    answer = await raw_request(node.url, b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n")
    assert answer.status == 403
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/homes/1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/devices/1/event", {"PUT"}),
        ("/events", {"POST"}),
    ],
)
async def test_preflight_needs_no_key(node: NodeProcess, path: str, methods: set[str]) -> None:
    asked = {
        **ORIGIN,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    async with node.client() as http, http.options(path, headers=asked) as answer:
        assert answer.status == 204
        assert await answer.read() == b""
        assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) == methods
        assert set(answer.headers["Access-Control-Allow-Headers"].split(", ")) >= {
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "X-Auth-Token",
            "X-User-Id",
        }
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("path", ["/nowhere", "/homes/1/nowhere", "/api/v1/nowhere"])
async def test_preflight_for_a_path_that_there_is_not(node: NodeProcess, path: str) -> None:
    """It says so, as the request itself would."""
    async with node.client() as http, http.options(path, headers=ORIGIN) as answer:
        assert answer.status == 404
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def preflight(node: NodeProcess, wanted: str, origin: str = ORIGIN["Origin"]) -> ClientResponse:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": wanted,
    }
    async with node.client() as http, http.options("/homes/1/event", headers=asked) as answer:
        assert answer.status == 204
        return answer


def allowed(answer: ClientResponse) -> set[str]:
    return {each.lower() for each in answer.headers["Access-Control-Allow-Headers"].split(", ")}


async def test_page_may_send_whatever_header_it_likes(node: NodeProcess) -> None:
    """Tracing adds some to each request of a page."""
    wanted = "authorization,baggage,sentry-trace,traceparent,X-Requested-With,cache-control"
    found = allowed(await preflight(node, wanted))
    assert found == {
        *wanted.lower().split(","),
        "content-type",
        "idempotency-key",
        "x-auth-token",
        "x-user-id",
    }


@pytest.mark.parametrize(
    "wanted", ["", ",", "a b", "x\ty", "ä", "a:b", '"a"', ",".join(f"h{number}" for number in range(2_000))]
)
async def test_invalid_header_name_is_not_repeated(node: NodeProcess, wanted: str) -> None:
    answer = await preflight(node, wanted)
    usual = allowed(await preflight(node, ""))
    assert allowed(answer) == usual


async def test_listed_origins_may_send_the_cookie_and_others_may_not() -> None:
    """As a browser asks for it; `*` would be worth nothing with credentials."""
    listed = "https://app.example.com"
    with private_node(cookie_origins=listed) as node:
        for origin, allow in ((listed, listed), ("https://other.example.com", "*"), ("null", "*")):
            answers = [await preflight(node, "content-type,baggage", origin)]
            async with node.client() as http:
                for path in ("/healthz", "/nowhere", "/userSession"):
                    async with http.get(path, headers={"Origin": origin}) as answer:
                        answers.append(answer)
            for answer in answers:
                assert answer.headers.getall("Access-Control-Allow-Origin") == [allow]
                assert answer.headers.get("Access-Control-Allow-Credentials") == (
                    "true" if origin == listed else None
                )
                assert "Origin" in ", ".join(answer.headers.getall("Vary"))
        assert "baggage" in allowed(answers[0])
