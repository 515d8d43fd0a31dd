"""A line that breaks, and one that has to say who it is, at a server that does what Redis seldom does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import hiredis
import pytest
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from homewire.errors import Unavailable
from homewire.redis import connection as lines
from homewire.redis import servers as connecting
from homewire.redis.connect import connect, translate_redis_errors
from homewire.redis.connection import RedisConnection
from homewire.redis.pipeline import AutoPipeline
from homewire.redis.server_pipeline import MAX_COMMANDS_PER_WRITE, MAX_CONNECTIONS
from homewire.redis.servers import Connections

Answer = Callable[[list[bytes]], bytes | None]
"""What to say to a command; None: close instead."""


@asynccontextmanager
async def talking(
    socket: Path, answer: Answer, query: str = "", *, only_reads: bool = False
) -> AsyncIterator[AutoPipeline]:
    """Trips to a server that answers so."""

    ended: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.get_running_loop().create_future())
        # A line that is dropped with a reply unread is reset.
        with suppress(ConnectionResetError):
            await converse(reader, writer, answer)
        writer.close()
        with suppress(ConnectionResetError, BrokenPipeError):
            await writer.wait_closed()
        ended.pop().set_result(None)

    async with await asyncio.start_unix_server(serve, socket):
        redis = connect(f"unix://{query}{socket}")
        try:
            yield AutoPipeline(redis, only_reads=only_reads)
        finally:
            await redis.aclose()
            await asyncio.gather(*ended)


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
    commands = hiredis.Reader()
    while data := await reader.read(65536):
        commands.feed(data)
        while (command := commands.gets()) is not False:
            said = answer(command)
            if said is None:
                return
            writer.write(said)


async def test_replies_before_disconnect_are_delivered(tmp_path: Path) -> None:
    def answer(command: list[bytes]) -> bytes | None:
        return None if command[1] == b"3" else b"$1\r\n%b\r\n" % command[1]

    async with talking(tmp_path / "s", answer) as pipe:
        asked = [pipe.ask(("GET", str(n)), ("GET", str(n + 1))) for n in (0, 2, 4)]
        first, *rest = await asyncio.gather(*asked, return_exceptions=True)
        assert first == [b"0", b"1"]
        # Of the second, one command was answered and the other one perhaps executed.
        assert [type(each) for each in rest] == [RedisConnectionError] * 2
        assert await pipe.ask(("GET", "7")) == [b"7"]


async def test_credentials_come_first(tmp_path: Path) -> None:
    received: list[list[bytes]] = []

    def answer(command: list[bytes]) -> bytes:
        received.append(command)
        return b"+OK\r\n" if command[0] == b"AUTH" else b"$1\r\nx\r\n"

    async with talking(tmp_path / "s", answer, "ada:secret@") as pipe:
        assert await pipe.ask(("GET", "a")) == [b"x"]
    assert received == [[b"AUTH", b"ada", b"secret"], [b"GET", b"a"]]


async def test_refused_credentials_are_not_repeated_in_the_error(tmp_path: Path) -> None:
    async with talking(tmp_path / "s", lambda _: b"-WRONGPASS hunter2\r\n", ":hunter2@") as pipe:
        with pytest.raises(AuthenticationError) as refused:
            await pipe.ask(("GET", "a"))
    assert "hunter2" not in str(refused.value)


def test_waiting_command_of_a_demoted_master_is_unavailable() -> None:
    with pytest.raises(Unavailable), translate_redis_errors():
        raise ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed")


@pytest.mark.parametrize("refusal", ["READONLY You can't write against a read only replica.", "MASTERDOWN x"])
@pytest.mark.parametrize("pipelined", [True, False])
async def test_next_commands_after_refusal_go_to_a_new_connection(
    tmp_path: Path, refusal: str, pipelined: bool
) -> None:
    """The server became a replica: a new connection may reach the master."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        is_first = len(connections) == 1
        said = f"-{refusal}\r\n".encode() if is_first else b"+OK\r\n"
        await converse(reader, writer, lambda _: said)
        writer.close()

    async with (
        await asyncio.start_unix_server(serve, tmp_path / "s"),
        connect(f"unix://{tmp_path}/s") as redis,
    ):
        command: Any = AutoPipeline(redis).ask if pipelined else redis.execute_command
        words: Any = (("SET", "a", "1"),) if pipelined else ("SET", "a", "1")
        with pytest.raises(ResponseError):
            await command(*words)
        assert await command(*words) in ([True], True)
    assert len(connections) == 2


async def test_malformed_reply_ends_connection(tmp_path: Path) -> None:
    async with talking(tmp_path / "s", lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n") as pipe:
        with pytest.raises(RedisConnectionError):
            await pipe.ask(("GET", "a"))


async def test_refused_connections_are_given_up_and_their_requests_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_S", 0.1)
    conversations: list[asyncio.Task[None]] = []

    async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(cast("asyncio.Task[None]", asyncio.current_task()))
        while await reader.read(65536):
            pass
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(listen_only, tmp_path / "s"), asyncio.timeout(20):
        redis = connect(f"unix://ada:secret@{tmp_path}/s")
        pipe, many = AutoPipeline(redis), [("GET", "a")] * MAX_COMMANDS_PER_WRITE
        asked = [pipe.ask(*many) for _ in range(3 * MAX_CONNECTIONS)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in outcomes} == {TimeoutError}
        # A line may be given up before the server's side of it was begun.
        while len(conversations) < len(asked):  # noqa: ASYNC110 (it is told to nobody)
            await asyncio.sleep(0)
        assert len(conversations) == len(asked)
        await asyncio.gather(*conversations)
        await redis.aclose()


async def test_reads_that_a_connection_broke_under_are_asked_once_more(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def answer(command: list[bytes]) -> bytes | None:
        asked.append(command[1])
        return None if asked.count(b"a") == 1 else b"$1\r\nx\r\n"

    async with talking(tmp_path / "s", answer, only_reads=True) as pipe:
        assert await pipe.ask(("GET", "a")) == [b"x"]
    assert asked == [b"a", b"a"]


async def test_script_without_an_answer_is_not_sent_again(tmp_path: Path) -> None:
    asked: list[bytes] = []
    async with talking(tmp_path / "s", lambda command: asked.append(command[1])) as pipe:
        with pytest.raises(RedisConnectionError):
            await pipe.ask(("EVALSHA", "a", 1, "key"))
    assert asked == [b"a"]


async def test_reads_are_asked_no_third_time(tmp_path: Path) -> None:
    asked: list[bytes] = []
    async with talking(tmp_path / "s", lambda command: asked.append(command[1]), only_reads=True) as pipe:
        with pytest.raises(RedisConnectionError):
            await pipe.ask(("GET", "a"))
    assert asked == [b"a", b"a"]


@asynccontextmanager
async def silent_line(
    socket: Path, answer: Answer, changed: Callable[[RedisConnection], None]
) -> AsyncIterator[None]:
    """A line to a server that answers so, on which nothing is asked."""
    async with talking(socket, answer):
        redis = connect(f"unix://{socket}")
        connections = Connections.of(redis)
        assert connections.servers.single is not None
        await connections.open(connections.servers.single, changed)
        yield
        await redis.aclose()


async def test_silent_line_asks_for_a_pong_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "PING_S", 0.01)
    pings: asyncio.Queue[list[bytes]] = asyncio.Queue()

    def answer(command: list[bytes]) -> bytes:
        pings.put_nowait(command)
        return b"+PONG\r\n"

    # A server that is held up loses the line, which says nothing here.
    async with silent_line(tmp_path / "s", answer, lambda _: None), asyncio.timeout(60):
        assert await pings.get() == [b"PING"]


async def test_dead_connection_is_given_up_before_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "PING_S", 0.01)
    lost = asyncio.Event()
    async with silent_line(
        tmp_path / "s", lambda _: b"", lambda connection: lost.set() if connection.lost else None
    ):
        async with asyncio.timeout(60):
            await lost.wait()
