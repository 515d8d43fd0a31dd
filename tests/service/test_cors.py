"""What browsers need so that a page of another origin may call."""

from __future__ import annotations

import pytest
from aiohttp import ClientResponse
from nodes import NodeProcess, Tenant
from wire import raw_request

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
                assert exposed(answer) == {"vnd.tinkermode.range", "Retry-After"}


async def test_what_is_no_http_is_refused_readably(node: NodeProcess) -> None:
    answer = await raw_request(node.url, b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n")
    assert answer.status == 403
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/homes/1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/devices/1/event", {"PUT"}),
        ("/events", {"POST"}),
        ("/nowhere", {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}),
    ],
)
async def test_a_preflight_needs_no_key(node: NodeProcess, path: str, methods: set[str]) -> None:
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
