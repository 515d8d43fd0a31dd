"""What homewire says to Redis: nothing that a cluster refuses, and no command on more than 1,000 elements.

That every command and script keeps to one slot, with its keys declared, is proved by `make test-cluster`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from kit.client import listen
from kit.node import private_node
from kit.redis_server import embedded_server
from kit.tenant import Tenant, tenant_of
from kit.warm import run_homewire

MOST_ARGUMENTS = 2_010
"""1,000 elements with a value each, and what leads them."""
MOST_ELEMENTS = 1_000
FORBIDDEN = {
    **dict.fromkeys(("KEYS", "FLUSHALL", "FLUSHDB"), "reads or ends all there is"),
    **dict.fromkeys(("SELECT", "SWAPDB", "MOVE"), "a cluster has one database"),
    **dict.fromkeys(("SMEMBERS", "HKEYS", "HVALS", "SUNION", "SINTER", "SORT"), "answers a whole collection"),
    "DEL": "frees a large value while everybody waits; UNLINK does not",
}
PAGED = {"SCAN": "COUNT", "SSCAN": "COUNT", "HSCAN": "COUNT", "XRANGE": "COUNT", "XREAD": "COUNT"}
"""Commands that read as much as they are asked for, and the word before the number."""


class Watched:
    """Every command that a Redis got from clients and from scripts, word by word."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def problems(self) -> list[str]:
        """What is wrong with which command."""
        return sorted({problem for words in self.commands if (problem := problem_of(words))})


def problem_of(words: Sequence[str]) -> str:
    """Why homewire must not send this, or nothing."""
    name, *arguments = [words[0].upper(), *words[1:]]
    shown = " ".join([name, *arguments[:4]])[:100]
    if name in FORBIDDEN:
        return f"{shown}: {FORBIDDEN[name]}"
    if len(arguments) > MOST_ARGUMENTS:
        return f"{shown}: {len(arguments)} arguments"
    upper = [argument.upper() for argument in arguments]
    if name in PAGED:
        asked = int(arguments[upper.index(PAGED[name]) + 1]) if PAGED[name] in upper else MOST_ELEMENTS + 1
    elif name in ("ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZRANGEBYLEX"):
        asked = int(arguments[upper.index("LIMIT") + 2]) if "LIMIT" in upper else MOST_ELEMENTS + 1
    elif name in ("ZRANGE", "ZREVRANGE", "LRANGE") and "BYSCORE" not in upper:
        start, stop = int(arguments[1]), int(arguments[2])
        # From 0 to -1 is everything; from -5 to -1 is not.
        asked = stop - start + 1 if (start < 0) == (stop < 0) else MOST_ELEMENTS + 1
    else:
        asked = 0
    return f"{shown}: up to {asked} elements" if asked > MOST_ELEMENTS else ""


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("KEYS *", True),
        ("select 1", True),
        ("ZRANGE z 0 -1", True),
        ("ZRANGE z 0 0", False),
        ("ZRANGE z 0 999", False),
        ("ZRANGE z 0 1000", True),
        ("ZRANGEBYSCORE z -inf +inf", True),
        ("ZRANGEBYSCORE z -inf +inf LIMIT 0 1000", False),
        ("SCAN 0 MATCH x COUNT 5000", True),
        ("XRANGE s - + COUNT 100", False),
        ("XRANGE s - +", True),
        ("HGET h f", False),
        ("HMGET h " + "f " * 2_011, True),
    ],
)
def test_measure_itself(command: str, wrong: bool) -> None:
    assert bool(problem_of(command.split())) is wrong


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watched]:
    """Watches all that a server is sent in the block, by MONITOR."""
    watched = Watched()
    reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix://"), limit=1 << 24)

    async def take() -> None:
        while words := words_of(await reader.readline()):
            watched.commands.append(words)
            if words[-1] == "enough":
                return

    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    taking = asyncio.create_task(take())
    try:
        yield watched
        other_reader, other = await asyncio.open_unix_connection(url.removeprefix("unix://"))
        other.write(b"ECHO enough\r\n")
        await other_reader.readline()
        other.close()
        await asyncio.wait_for(taking, 20)
    finally:
        taking.cancel()
        writer.close()


def words_of(line: bytes) -> list[str]:
    """The words of a line of MONITOR: ``+<time> [<db> <client>] "word" …``."""
    return [word.decode("latin-1") for word in re.findall(rb'"((?:[^"\\]|\\.)*)"', line)]


async def test_demo_and_bulk_ingest_run_without_errors(short_directory: Path) -> None:
    """From the command line to the node's end, with more than 1,000 of everything that may be many."""
    async with embedded_server(short_directory / "redis") as server:
        async with watching(server.url) as watched:
            options = ("--redis", server.url, "--data-dir", str(short_directory / "cli"), "--json")
            size = ("--homes", "20", "--devices", "60", "--users", "3")
            demo = orjson.loads(await run_homewire("demo", *size, *options))
            with private_node(redis_url=server.url) as node:
                async with tenant_of(node) as tenant:
                    await much_of_everything(tenant)
                assert await node.stop() == 0
            for project in (demo["projectId"], tenant.project):
                await run_homewire("project", "delete", "--yes", "--project", str(project), *options)
        names = {words[0].upper() for words in watched.commands}
        # What must have been seen, or the watch saw nothing.
        assert {"EVALSHA", "XADD", "XREAD", "HSET", "ZADD"} <= names
        assert len(watched.commands) > 10_000
        assert watched.problems() == []


async def much_of_everything(tenant: Tenant) -> None:
    """1,100 homes of one user, bulk bodies of 1,000 events for them, twice with the same key, a listener."""
    user = await tenant.user()
    homes = await tenant.homes(user, 1_100)
    events = [{"homeId": home, "eventType": "t"} for home in homes]
    await tenant.send(*events)
    body, headers = orjson.dumps(events[:1_000]), {"Authorization": tenant.key, "Idempotency-Key": "once"}
    for _ in range(2):
        async with tenant.http.post("/events", data=body, headers=headers) as answer:
            assert answer.status == 200
    query = "&".join(f"homeId={home}" for home in homes[:1_000])
    async with await listen(tenant.url, f"/userSession/websocket?{query}", user.key) as socket:
        await tenant.send({"homeId": homes[0], "eventType": "last"})
        assert await socket.receive_type() == "last"
