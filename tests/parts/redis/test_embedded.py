"""The embedded server: one lock, no orphan, nothing lost at kill -9, found by others."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from homewire.access_changes.relay import Relay
from homewire.errors import ConfigurationError, DataDirInUse, NotConfirmed, Unavailable
from homewire.projects.models import AccountSystem
from homewire.redis import data_dir as directory
from homewire.redis.connect import connect, translate_redis_errors
from homewire.redis.data_dir import LONGEST_TAIL
from homewire.redis.embedded import EmbeddedServer, find_binary
from homewire.repositories import Store
from kit.clock import suspended
from kit.manual_clock import loop_time

PARENT = """
import asyncio, sys
from pathlib import Path
from homewire.redis.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(Path(sys.argv[1])) as server:
        print(server.pid, server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Redis]:
    client = connect(url)
    try:
        yield client
    finally:
        await client.aclose()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something in another process, which can only be looked at."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def is_healthy(client: Redis) -> bool:
    try:
        with translate_redis_errors():
            return bool(await client.ping())
    except Unavailable:
        return False


async def counter(client: Redis) -> int:
    return int(await client.get("counter") or 0)


def gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


async def test_second_start_on_the_directory_names_the_first(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory) as server:
        with pytest.raises(DataDirInUse, match=str(os.getpid())):
            await EmbeddedServer(short_directory).start()
        async with client_of(server.url) as client:
            assert await client.ping()  # The loser took nothing from the holder.


async def test_directory_is_free_again_after_the_end(short_directory: Path) -> None:
    for _ in range(2):
        async with EmbeddedServer(short_directory) as server:
            assert EmbeddedServer.running(short_directory) == server.url
        assert EmbeddedServer.running(short_directory) is None
        assert gone(server.pid)


def test_nothing_runs_on_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    assert EmbeddedServer.running(tmp_path / "none") is None


async def test_kill_of_the_parent_leaves_no_orphan(short_directory: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(short_directory),
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert parent.stdout is not None
    pid, url = (await parent.stdout.readline()).decode().split()
    assert EmbeddedServer.running(short_directory) == url
    with pytest.raises(DataDirInUse, match=str(parent.pid)):
        await EmbeddedServer(short_directory).start()
    process = psutil.Process(int(pid))
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(psutil.wait_procs, [process], timeout=10)
    assert gone(int(pid))
    async with EmbeddedServer(short_directory) as server:  # The lock went with it.
        assert server.url == url


async def test_ctrl_c_does_not_reach_the_server(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory) as server:
        assert os.getpgid(server.pid) != os.getpgrp()


async def test_server_holds_the_lock_too(short_directory: Path) -> None:
    """So that the lock lives as long as the server does, whatever becomes of its parent."""
    async with EmbeddedServer(short_directory) as server:
        assert str(short_directory / "lock") in [
            file.path for file in psutil.Process(server.pid).open_files()
        ]


async def test_acknowledged_writes_survive_kill_of_the_server_and_supervise_restarts_it(
    short_directory: Path,
) -> None:
    async with EmbeddedServer(short_directory) as server:
        supervision = asyncio.create_task(server.supervise())
        url, first = server.url, server.pid
        async with client_of(url) as client:
            acknowledged = 0
            while acknowledged < 200:
                acknowledged = await client.incr("counter")
            os.kill(first, signal.SIGKILL)
            await until(lambda: is_healthy(client))
            assert server.pid != first
            assert await counter(client) == acknowledged
        assert server.url == url
        assert EmbeddedServer.running(short_directory) == url
        second = server.pid
    async with asyncio.timeout(20):
        await supervision  # Ends by itself once the server was closed on purpose.
    assert gone(second)


async def test_wait_tells_the_end_of_the_server(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory) as server:
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            assert await server.wait() == -signal.SIGKILL


async def test_deep_directory_gets_its_socket_elsewhere(short_directory: Path) -> None:
    deep = short_directory / ("d" * 60) / ("e" * 60)
    sockets = []
    for _ in range(2):
        async with EmbeddedServer(deep) as server:
            socket = Path(server.url.removeprefix("unix://"))
            sockets.append(socket)
            assert not socket.is_relative_to(deep)
            assert socket.parent.stat().st_mode & 0o777 == 0o700
            assert EmbeddedServer.running(deep) == server.url
            async with client_of(server.url) as client:
                assert await client.ping()
    assert sockets[0] == sockets[1]  # Used again, so that no run leaves a directory behind.
    sockets[0].unlink(missing_ok=True)
    sockets[0].parent.rmdir()


async def test_path_with_odd_characters_works(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory / "a b%20ü'") as server, client_of(server.url) as client:
        assert await client.ping()


async def test_directory_is_private(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory / "new"):
        assert (short_directory / "new").stat().st_mode & 0o777 == 0o700


def test_directory_of_others_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "something").touch()
    with pytest.raises(ConfigurationError, match="not empty"):
        directory.DataDirectory.take(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


async def test_server_that_cannot_start_is_an_error_and_frees_the_directory(short_directory: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.log"):
        await EmbeddedServer(short_directory, binary=Path("/bin/false")).start()
    assert EmbeddedServer.running(short_directory) is None


def test_binary_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        find_binary(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("version", "found"), [("7.0.15", True), ("6.2.14", False), ("10.0.1", True), ("junk", False)]
)
def test_path_is_searched_when_nothing_is_bundled(
    version: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0:0'\n")
    program.chmod(0o700)
    monkeypatch.setattr("homewire.redis.embedded._bundled", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    if found:
        assert find_binary() == program
        return
    with pytest.raises(ConfigurationError, match="--redis"):
        find_binary()


async def test_borrow_uses_the_running_server_or_starts_one(short_directory: Path) -> None:
    async with EmbeddedServer.borrow(short_directory) as url, client_of(url) as client:
        await client.set("kept", "1")
    assert EmbeddedServer.running(short_directory) is None
    async with EmbeddedServer(short_directory) as server:
        async with EmbeddedServer.borrow(short_directory) as url, client_of(url) as client:
            assert await client.get("kept") == b"1"
        async with client_of(server.url) as client:
            assert await client.ping()  # What was only borrowed goes on.


async def test_borrow_starts_one_when_another_process_ends_before_its_server_answers(
    short_directory: Path,
) -> None:
    async def borrow() -> str:
        async with EmbeddedServer.borrow(short_directory) as url, client_of(url) as client:
            return str(await client.set("kept", "1"))

    other = directory.DataDirectory.take(short_directory)
    borrowing = asyncio.create_task(borrow())
    # The directory is held for as long as nobody listens there.
    await asyncio.wait([borrowing], timeout=0.05)
    assert not borrowing.done()
    other.close()
    assert await asyncio.wait_for(borrowing, 10) == "True"


@pytest.mark.parametrize(("durability", "stored"), [("always", b"always"), ("everysec", b"everysec")])
async def test_settings_of_the_server(short_directory: Path, durability: str, stored: bytes) -> None:
    async with (
        EmbeddedServer(short_directory, durability) as server,  # type: ignore[arg-type]
        client_of(server.url) as client,
    ):
        assert (await client.config_get("appendfsync"))["appendfsync"] in (stored, stored.decode())
        assert (await client.config_get("maxmemory-policy"))["maxmemory-policy"] in (
            b"noeviction",
            "noeviction",
        )
        assert (await client.config_get("port"))["port"] in (b"0", "0")


async def test_redis_gone_is_unavailable_and_a_write_not_confirmed(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory) as server:
        client = connect(server.url)
        assert await is_healthy(client)
    assert not await is_healthy(client)
    with pytest.raises(Unavailable), translate_redis_errors():
        await client.get("x")
    with pytest.raises(NotConfirmed), translate_redis_errors(writing=True):
        await client.set("x", "1")
    await client.aclose()


async def test_write_whose_answer_does_not_come_is_sent_once(short_directory: Path) -> None:
    received: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1000))
        writer.close()

    socket = short_directory / "s"
    async with await asyncio.start_unix_server(hang_up, socket), client_of(f"unix://{socket}") as client:
        with pytest.raises(NotConfirmed), translate_redis_errors(writing=True):
            await client.incr("counter")
    assert [piece for piece in received if b"INCR" in piece.upper()] == received
    assert len(received) == 1


async def test_hung_redis_is_unavailable_within_five_seconds(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory) as server, client_of(server.url) as client:
        store = Store(client, Relay(client, 64))
        project = await store.projects.create("hung", AccountSystem.EMAIL)
        with suspended(server.pid):
            async with loop_time() as waited:
                # More than there are connections: a request that waits for one is answered in time, too.
                results = await asyncio.gather(
                    *(store.projects.get(project.id) for _ in range(100)), return_exceptions=True
                )
        assert {type(result) for result in results} == {Unavailable}
        assert waited.seconds < 5
        assert await store.projects.get(project.id) == project


async def test_redis_that_refuses_for_the_moment_is_unavailable(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory) as server, client_of(server.url) as client:
        await client.config_set("maxmemory", "1")
        with pytest.raises(Unavailable) as refused, translate_redis_errors(writing=True):
            await client.set("x", "1")
        assert not isinstance(refused.value, NotConfirmed)


async def test_more_requests_than_connections_wait_their_turn(short_directory: Path) -> None:
    async with EmbeddedServer(short_directory) as server:
        client = connect(server.url, max_connections=2)
        await asyncio.gather(*(client.incr("counter") for _ in range(100)))
        assert await counter(client) == 100
        await client.aclose()


def aof_of(data_dir: Path) -> Path:
    (file,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    return file


def pieces_kept(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("damaged-*"))


async def write_and_kill(data_dir: Path, values: int) -> None:
    """A server writes transactions of two values each, all fsynced, and loses its power."""
    async with EmbeddedServer(data_dir) as server, client_of(server.url) as client:
        for number in range(values):
            both = "for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1]) end"
            await client.eval(both, 2, f"{{x}}a{number}", f"{{x}}b{number}", "v" * 50)
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()


TORN: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda whole: whole[:-30],
    "zeros": lambda whole: whole + bytes(4096),
    "cut-and-zeros": lambda whole: whole[:-30] + bytes(4096),
    "garbage": lambda whole: whole + random.Random(1).randbytes(256),
    "half-a-command-and-garbage": lambda whole: whole + b"*3\r\n$3\r\nSET\r\n$9\r\n" + bytes(range(256)),
    "no-number": lambda whole: whole + b"*" + b"9" * 5000,
}


@pytest.mark.parametrize("damage", TORN.values(), ids=TORN)
async def test_server_starts_after_a_power_loss_that_tore_its_file(
    short_directory: Path, damage: Callable[[bytes], bytes]
) -> None:
    await write_and_kill(short_directory, 20)
    file = aof_of(short_directory)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    async with EmbeddedServer(short_directory) as server, client_of(server.url) as client:
        # Of the last transaction, if it was torn, nothing is there; of all others, everything.
        both = [(await client.exists(f"{{x}}a{n}"), await client.exists(f"{{x}}b{n}")) for n in range(20)]
        assert both[:19] == [(1, 1)] * 19
        assert both[19] == ((1, 1) if damage(whole).startswith(whole) else (0, 0))
        await client.set("later", "x")
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
    async with EmbeddedServer(short_directory) as server, client_of(server.url) as client:
        assert await client.get("later") == b"x"


async def test_part_cut_from_torn_file_is_saved(short_directory: Path) -> None:
    await write_and_kill(short_directory, 3)
    file = aof_of(short_directory)
    whole = file.read_bytes()
    file.write_bytes(whole + bytes(512))
    async with EmbeddedServer(short_directory):
        (kept,) = pieces_kept(short_directory)
        assert kept.name == f"damaged-{file.name}-from-{len(whole)}"
        assert kept.read_bytes() == bytes(512)


async def test_file_that_is_damaged_in_its_middle_is_left_alone(short_directory: Path) -> None:
    await write_and_kill(short_directory, 3)
    file = aof_of(short_directory)
    damaged = file.read_bytes() + bytes(LONGEST_TAIL + 1)
    file.write_bytes(damaged)
    with pytest.raises(ConfigurationError, match=r"damaged at byte \d+.*Restore a backup"):
        await EmbeddedServer(short_directory).start()
    assert file.stat().st_size == len(damaged)
    assert not pieces_kept(short_directory)
