"""What is wrong before any operation is found has the shape of the family that the path belongs to."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from kit.client import raw_request
from kit.node import NodeProcess

MODE: Final = {"reason", "data"}
ROCKET_CHAT: Final = {"success", "error"}
SHAPES: Final = (
    ("/nowhere", MODE),
    ("/homes/1/nowhere", MODE),
    ("/session/nowhere", MODE),
    ("/api/session/nowhere", MODE),
    ("/sessions/1/nowhere", MODE),
    ("/api/v1/nowhere", ROCKET_CHAT),
    ("/api/v1", ROCKET_CHAT),
    ("/api/v1/sessions/nowhere", ROCKET_CHAT),
)


def is_error(body: dict[str, Any], members: set[str]) -> None:
    assert members <= body.keys()
    if members is MODE:
        assert re.fullmatch("[A-Z_]+", body["reason"])
        assert body.keys() == MODE
    else:
        assert body["success"] is False
        assert body["error"]


@pytest.mark.parametrize(("path", "members"), SHAPES)
async def test_path_that_there_is_not(node: NodeProcess, path: str, members: set[str]) -> None:
    async with node.client() as http:
        for method in ("GET", "POST", "DELETE"):
            async with http.request(method, path) as answer:
                assert answer.status == 404
                is_error(await answer.json(), members)


@pytest.mark.parametrize(
    ("path", "members", "allowed"),
    [
        ("/homes", MODE, {"GET", "HEAD", "POST"}),
        ("/session/login", MODE, {"POST"}),
        ("/api/session/user", MODE, {"GET", "HEAD"}),
        ("/sessions/x", MODE, {"GET", "HEAD", "DELETE"}),
        ("/api/v1/login", ROCKET_CHAT, {"POST"}),
        ("/api/v1/sessions/info", ROCKET_CHAT, {"GET", "HEAD"}),
    ],
)
async def test_method_that_a_path_has_not(
    node: NodeProcess, path: str, members: set[str], allowed: set[str]
) -> None:
    async with node.client() as http, http.request("PROPFIND", path) as answer:
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(", ")) == allowed
        is_error(await answer.json(), members)
    async with node.client() as http, http.options(path) as answer:
        assert answer.status == 204
        assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("path", "members", "status"),
    [("/auth/user", MODE, 403), ("/session/login", MODE, 400), ("/api/v1/login", ROCKET_CHAT, 400)],
)
@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("", b""),
        ("", b"{"),
        ("", b"[]"),
        ("", b'{"login": "\xff"}'),
        ("", b"x" * 100_000),
        ("Content-Encoding: gzip\r\n", b"no gzip"),
        ("", b"[" * 50_000),
    ],
)
async def test_body_that_cannot_be_read(
    node: NodeProcess, path: str, members: set[str], status: int, head: str, body: bytes
) -> None:
    """Each has the status that bad input has there."""
    request = f"POST {path} HTTP/1.1\r\nHost: h\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    answer = await raw_request(node.url, request.encode() + body)
    assert answer.status == status
    is_error(answer.json(), members)


@pytest.mark.parametrize(
    ("path", "members", "status"), [("/session/user", MODE, 401), ("/api/v1/sessions/list", ROCKET_CHAT, 401)]
)
async def test_request_without_login_gets_401(
    node: NodeProcess, path: str, members: set[str], status: int
) -> None:
    async with node.client() as http:
        for headers in ({}, {"Authorization": "x"}, {"X-Auth-Token": "x"}, {"Cookie": "homewire_session=x"}):
            async with http.get(path, headers=headers) as answer:
                assert answer.status == status
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="homewire"'
                is_error(await answer.json(), members)


@pytest.mark.parametrize("line", ["FOO /homes", "foo /homes", "GETX /nowhere"])
async def test_method_that_no_path_has(node: NodeProcess, line: str) -> None:
    answer = await raw_request(node.url, f"{line} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert (answer.status, answer.json()["reason"]) == (501, "METHOD_NOT_IMPLEMENTED")


@pytest.mark.parametrize("line", ["}GET /homes HTTP/1.1", '"}', "\x16\x03\x01", "FOO", "FOO /homes HTTP/2.0"])
async def test_malformed_request_line_is_refused(node: NodeProcess, line: str) -> None:
    answer = await raw_request(node.url, f"{line}\r\nHost: h\r\n\r\n".encode())
    assert (answer.status, answer.json()["reason"]) == (403, "INVALID_PARAMETER")
