"""Answers that are made while they are sent: whole, or visibly cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from homewire.http.streamed import Streamed

Chunks = Callable[[], AsyncGenerator[bytes]]


class Sent:
    """Chunks, and whether somebody let go of them."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self._chunks = chunks
        self.closed = asyncio.Event()

    async def __call__(self) -> AsyncGenerator[bytes]:
        try:
            for chunk in self._chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed.set()


@asynccontextmanager
async def serving(
    sent: Sent, stalled_s: float = 10.0
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await Streamed.begun(request, sent(), stalled_s=stalled_s)

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_all_chunks_arrive() -> None:
    sent = Sent(b"[1", b",2", b",3]")
    async with serving(sent) as client, client.get("/") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == [1, 2, 3]
        assert sent.closed.is_set()


async def test_a_head_has_no_body() -> None:
    sent = Sent(b"[1", b",2]")
    async with serving(sent) as client:
        async with client.head("/") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with client.get("/") as answer:
            assert await answer.json() == [1, 2], "on the same connection"


async def test_what_fails_before_the_first_chunk_is_an_answer_of_its_own() -> None:
    async with serving(Sent(web.HTTPConflict())) as client, client.get("/") as answer:
        assert answer.status == 409


@pytest.mark.parametrize("error", [ValueError("bug"), OSError("disk"), TimeoutError()])
async def test_what_fails_later_cuts_the_answer_off(error: Exception) -> None:
    sent = Sent(b"[1", error)
    async with serving(sent) as client, client.get("/") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
        assert sent.closed.is_set()


async def test_an_old_client_learns_the_end_by_the_connections() -> None:
    async with serving(Sent(b"[1", b",2]")) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        content = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
    assert content.endswith(b"\r\n\r\n[1,2]")


async def test_who_takes_nothing_is_given_up() -> None:
    sent = Sent(*[bytes(1_000_000)] * 30)
    async with serving(sent, stalled_s=0.1) as client:
        _, writer = await asyncio.open_connection(client.host, client.port, limit=1_000)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await asyncio.wait_for(sent.closed.wait(), 5)
        writer.transport.abort()
