"""Answers that are made while they are sent: whole, or visibly cut off; and what they hold meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from homewire.server.streaming import (
    PIECE,
    Pace,
    ResponseBudget,
    ResponseBudgetFull,
    StreamedResponse,
    UnreadResponse,
)
from kit.manual_clock import ManualClock

MIB: Final = 1024 * 1024
LARGE: Final = 30
"""Chunks of a MiB: more than the kernel takes for a client that does not read."""


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
    sent: Sent, budget: ResponseBudget | None = None, whole_s: float | None = None
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    counted = budget or ResponseBudget()

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await StreamedResponse.begun(request, sent(), counted, ("principal", 1), whole_s=whole_s)
        except ResponseBudgetFull as error:
            return web.Response(status=error.status, text=error.data["limit"])

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestClient(TestServer(app)) as client:
        yield client
    assert counted.metrics()["response_bytes"] == 0


async def test_all_chunks_arrive() -> None:
    sent = Sent(b"[1", b",2", b",3]")
    async with serving(sent) as client, client.get("/") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == [1, 2, 3]
        assert sent.closed.is_set()


async def test_chunks_that_are_larger_than_a_piece_arrive() -> None:
    large = b"[" + b"1," * 200_000 + b"2]"
    async with serving(Sent(large)) as client, client.get("/") as answer:
        assert await answer.read() == large


async def test_head_has_no_body() -> None:
    sent = Sent(b"[1", b",2]")
    async with serving(sent) as client:
        async with client.head("/") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with client.get("/") as answer:
            assert await answer.json() == [1, 2], "on the same connection"


async def test_failure_before_first_chunk_is_an_error_answer() -> None:
    async with serving(Sent(web.HTTPConflict())) as client, client.get("/") as answer:
        assert answer.status == 409


@pytest.mark.parametrize("error", [ValueError("bug"), OSError("disk"), TimeoutError()])
async def test_failure_after_first_chunk_cuts_answer(error: Exception) -> None:
    sent = Sent(b"[1", error)
    async with serving(sent) as client, client.get("/") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
        assert sent.closed.is_set()


async def test_old_client_learns_the_end_by_the_connections() -> None:
    async with serving(Sent(b"[1", b",2]")) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        content = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await writer.wait_closed()
    assert content.endswith(b"\r\n\r\n[1,2]")


async def asked(client: TestClient[web.Request, web.Application]) -> asyncio.StreamWriter:
    """A request whose answer nobody reads."""
    _, writer = await asyncio.open_connection(client.host, client.port, limit=1_000)
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    return writer


async def test_client_that_takes_nothing_is_cut() -> None:
    budget, sent = ResponseBudget(pace=Pace(stall_s=0.1, bytes_per_s=MIB)), Sent(*[bytes(MIB)] * LARGE)
    async with serving(sent, budget) as client:
        writer = await asked(client)
        await asyncio.wait_for(sent.closed.wait(), 20)
        assert budget.metrics() == {"response_bytes": 0, "responses_refused": 0, "responses_aborted": 1}
        writer.transport.abort()


async def test_client_that_drips_is_cut() -> None:
    """It takes each piece before a client that takes nothing would be cut; together they take too long."""
    clock = ManualClock()
    budget = ResponseBudget(pace=Pace(stall_s=30.0, bytes_per_s=1_000), clock=clock)
    request = make_mocked_request("GET", "/")
    with budget.admit((1,), 2_000) as response:
        for size in [20_000] * 100 + [5_000] * 207:
            # Twice as fast as it has to be; then half as fast, until nothing is left of what that had won.
            async with response.writing(request, size):
                clock.turn(10)
        with pytest.raises(ConnectionResetError):
            await taken(response, request, 5_000)
    assert budget.metrics()["responses_aborted"] == 1


async def taken(response: UnreadResponse, request: web.Request, size: int) -> None:
    async with response.writing(request, size):
        await asyncio.Event().wait()


async def test_answer_that_takes_too_long_as_a_whole_is_cut() -> None:
    """However well its client reads."""
    budget, hold = ResponseBudget(), asyncio.Event()

    class Endless(Sent):
        async def __call__(self) -> AsyncGenerator[bytes]:
            try:
                yield b"["
                await hold.wait()
                yield b"]"
            finally:
                self.closed.set()

    sent = Endless()
    async with serving(sent, budget, whole_s=0.1) as client, client.get("/") as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
        assert sent.closed.is_set()


async def test_no_more_is_held_than_may_be() -> None:
    """What waits is counted for its principal, who is refused beyond the share; then for all."""
    budget = ResponseBudget(limit=8 * MIB, share=MIB + PIECE, pace=Pace(stall_s=60.0))
    async with serving(Sent(*[bytes(MIB)] * LARGE), budget) as client:
        writer = await asked(client)
        await until(lambda: budget.metrics()["response_bytes"] > 0)
        async with client.get("/") as answer:
            assert (answer.status, await answer.text()) == (503, "response_bytes_per_principal")
        assert budget.metrics()["response_bytes"] <= MIB + PIECE
        writer.transport.abort()
        await until(lambda: budget.metrics()["response_bytes"] == 0)


def test_project_has_half_and_all_have_the_whole() -> None:
    budget = ResponseBudget(limit=8 * MIB, share=3 * MIB)
    first = budget.admit((1, "project"), 3 * MIB)
    with pytest.raises(ResponseBudgetFull) as refused:
        budget.admit((1, "project"), 1)
    assert refused.value.data == {"limit": "response_bytes_per_principal"}
    with pytest.raises(ResponseBudgetFull) as refused:
        budget.admit((2, "project"), 2 * MIB)
    assert refused.value.data == {"limit": "response_bytes"}
    second = budget.admit((3, "another"), 3 * MIB)
    third = budget.admit((4,), 2 * MIB)
    with pytest.raises(ResponseBudgetFull):
        budget.admit((5,), 1)
    assert budget.metrics()["responses_refused"] == 3
    for each in (first, second, third):
        each.resize(0)
    # An owner without held bytes has room for one, however large.
    budget.admit((1, "project"), 7 * MIB).resize(0)
    assert budget.metrics()["response_bytes"] == 0
    assert budget._by_owner == {}


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
