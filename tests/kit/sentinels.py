"""A master, a replica and three Sentinels: real processes of the embedded server's program, by TCP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kit.clock import resume, suspend
from kit.node import reserved_port
from kit.redis_processes import DATA, Server, launched, text, wait_until

NAME: Final = "main"
DOWN_AFTER_MS: Final = 1000


@dataclass
class SentinelSet:
    """What runs, and the URL by which a node finds the master."""

    first: Server
    """The master at the start."""
    second: Server
    sentinels: list[Server]
    url: str

    def kill_master(self) -> None:
        """kill -9 of the first master and of the first Sentinel, as if they shared a machine; wait until the
        replica was promoted."""
        for each in (self.first, self.sentinels[0]):
            each.kill()
        self.until_promoted()

    def fail_over(self) -> None:
        """Have the Sentinels change the roles of two healthy servers; wait until they have."""
        self.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", NAME)
        self.until_promoted()
        wait_until(lambda: self.first.role() == "slave")

    def until_promoted(self) -> None:
        wait_until(lambda: self.second.role() == "master")

    @contextmanager
    def without_replication(self) -> Iterator[None]:
        """What is written meanwhile never reaches the replica, if the master is killed meanwhile."""
        suspend(self.second.process.pid)
        try:
            self.first.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            yield
        finally:
            resume(self.second.process.pid)

    def until_in_sync(self) -> None:
        """Wait until the replica has what the master has."""
        wait_until(lambda: bool(self.first.client.execute_command("WAIT", 1, 1000)))


@contextmanager
def running_sentinels() -> Iterator[SentinelSet]:
    """All of them, and the Sentinels know each other and the replica."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hw-sentinel-")))
        first_port, second_port, *ports = [stack.enter_context(reserved_port()) for _ in range(5)]
        first = stack.enter_context(_running(directory / "first", first_port, *DATA))
        following = ("replicaof", f"127.0.0.1 {first_port}")
        second = stack.enter_context(_running(directory / "second", second_port, *DATA, following))
        wait_until(lambda: first.client.info("replication")["connected_slaves"] == 1)
        wait_until(lambda: second.client.info("replication")["master_link_status"] == "up")
        watched = (
            ("sentinel", f"monitor {NAME} 127.0.0.1 {first_port} 2"),
            ("sentinel", f"down-after-milliseconds {NAME} {DOWN_AFTER_MS}"),
            ("sentinel", f"failover-timeout {NAME} 5000"),
        )
        sentinels = [
            stack.enter_context(_running(directory / str(number), port, *watched, sentinel=True))
            for number, port in enumerate(ports)
        ]
        for each in sentinels:
            wait_until(lambda each=each: _knows_all(each))  # type: ignore[misc]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        yield SentinelSet(first, second, sentinels, f"redis+sentinel://{hosts}/{NAME}")


@contextmanager
def _running(directory: Path, port: int, *lines: tuple[str, str], sentinel: bool = False) -> Iterator[Server]:
    with launched(directory, port, *lines, sentinel=sentinel) as server:
        wait_until(server.client.ping)
        yield server


def _knows_all(sentinel: Server) -> bool:
    reply: Any = sentinel.client.execute_command("SENTINEL", "MASTER", NAME)
    state = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    named = {text(name): text(value) for name, value in state.items()}
    return (named["num-other-sentinels"], named["num-slaves"]) == ("2", "1")
