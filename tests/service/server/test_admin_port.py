"""What strangers see of a node, and what only its operators see, at the admin port."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from kit.client import raw_request
from kit.clock import suspended
from kit.node import NodeProcess, eventually, private_node, reserved_port, running_node

GET = "GET {path} HTTP/1.1\r\nHost: h\r\nOrigin: https://page.example\r\n\r\n"


def asked(path: str) -> bytes:
    return GET.format(path=path).encode()


async def test_public_port_reveals_nothing_of_the_node(node: NodeProcess) -> None:
    assert (await raw_request(node.url, asked("/metrics"))).status == 404
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        answer = await raw_request(node.url, asked(path))
        assert (answer.status, answer.json()) == (200, {"status": status})
        assert answer.headers["server"] == "homewire"


async def test_admin_port_serves_operators_and_no_page(node: NodeProcess) -> None:
    answer = await raw_request(node.admin_url, asked("/metrics"))
    assert answer.status == 200
    assert b"homewire_connections" in answer.body
    for path in ("/metrics", "/readyz", "/healthz", "/nothing"):
        answer = await raw_request(node.admin_url, asked(path))
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["server"] == "homewire"
    # Nothing else is served there.
    for path in ("/homes", "/users", "/docs", "/userSession/websocket"):
        assert (await raw_request(node.admin_url, asked(path))).status == 404
    assert urlsplit(node.admin_url).hostname == "127.0.0.1"


@pytest.mark.parametrize(
    "request_bytes", [b"\x00\r\n\r\n", asked("/nothing"), asked("/homes"), asked("/userSession/websocket")]
)
async def test_no_answer_names_implementation(node: NodeProcess, request_bytes: bytes) -> None:
    answer = await raw_request(node.url, request_bytes)
    assert answer.headers["server"] == "homewire"
    everything = repr(answer.headers).lower() + answer.body.decode().lower()
    assert "aiohttp" not in everything
    assert "python" not in everything


async def test_only_admin_port_explains_unreadiness() -> None:
    with private_node() as node:
        redis = node.redis()
        pid = (await redis.info("server"))["process_id"]
        await redis.aclose()
        with suspended(int(pid)):
            async with node.client() as public, aiohttp.ClientSession(node.admin_url) as admin:

                async def unready() -> bool:
                    async with public.get("/readyz") as answer:
                        return answer.status == 503

                await eventually(unready, 30)
                async with public.get("/readyz") as answer:
                    assert answer.headers["Retry-After"] == "1"
                    assert await answer.json() == {"reason": "TEMPORARILY_UNAVAILABLE", "data": {}}
                async with admin.get("/readyz") as answer:
                    assert answer.status == 503
                    assert "Redis" in (await answer.json())["data"]["problem"]


async def test_admin_port_has_configured_address(short_directory: Path) -> None:
    with (
        reserved_port() as port,
        running_node(short_directory / "data", admin_port=port) as node,
        running_node(short_directory / "other", redis_url=node.redis_url, admin_host="127.0.0.5") as other,
    ):
        assert node.admin_url == f"http://127.0.0.1:{port}"
        assert urlsplit(other.admin_url).hostname == "127.0.0.5"
        for each in (node, other):
            assert (await raw_request(each.admin_url, asked("/metrics"))).status == 200
        with socket.socket() as elsewhere:
            assert elsewhere.connect_ex(("127.0.0.6", port)) != 0


def test_admin_port_in_use_is_said_at_start(short_directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(AssertionError, match="--admin-port"),
            running_node(short_directory / "data", admin_port=port),
        ):
            pass
