"""Answers that are written in one piece are, byte for byte, what aiohttp would have said."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from kit.client import TIMEOUT_S, RawConnection
from kit.node import NodeProcess
from kit.tenant import Tenant


async def said(url: str, requests: bytes) -> bytes:
    """All that the server says to these requests until it closes; the last one has to ask for that."""
    async with await RawConnection.open(url) as connection, asyncio.timeout(TIMEOUT_S):
        connection.writer.write(requests)
        return await connection.reader.read()


def request(
    method: str, path: str, key: str, body: bytes = b"", *headers: str, version: str = "1.1"
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: h", f"Authorization: {key}", *headers]
    lines += [f"Content-Length: {len(body)}", "Content-Type: application/json", "", ""]
    return "\r\n".join(lines).encode() + body


def head_and_body(answer: bytes) -> tuple[list[str], dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status.split(" ", 2), dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("what", ["read", "event"])
async def test_whole_answers_are_those_of_aiohttp(node: NodeProcess, tenant: Tenant, what: str) -> None:
    owner = await tenant.user()
    home = await tenant.home(owner)
    device = await tenant.device(home)
    asked = {
        "read": ("GET", f"/devices/{device.id}", owner.key, b""),
        "event": ("PUT", f"/devices/{device.id}/event", device.key, b'{"eventType":"e"}'),
    }[what]
    by_aiohttp = await said(node.url, request(*asked, "Connection: close"))
    status, headers, body = head_and_body(by_aiohttp)
    assert headers.pop("Connection") == "close"
    # Three of ours, and one that ends the connection: nothing stands between them.
    together = await said(node.url, 3 * request(*asked) + request(*asked, "Connection: close"))
    assert together.endswith(by_aiohttp[by_aiohttp.index(b"\r\n\r\n") :])
    for _ in range(3):
        ours_status, ours, rest = head_and_body(together)
        assert ours_status == status
        assert parsedate_to_datetime(ours["Date"]) >= parsedate_to_datetime(headers["Date"])
        assert {**ours, "Date": ""} == {**headers, "Date": ""}
        assert rest[: len(body)] == body
        together = rest[len(body) :]
    assert together.startswith(b"HTTP/1.1 ")


async def test_client_of_http_1_0_has_its_answer_and_the_end(node: NodeProcess, tenant: Tenant) -> None:
    owner = await tenant.user()
    home = await tenant.home(owner)
    answer = await said(node.url, request("GET", f"/homes/{home}", owner.key, version="1.0"))
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith(b"}")
