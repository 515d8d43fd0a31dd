"""Processes of the embedded server's program, by TCP, for the tests of Sentinel and of Redis Cluster."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from homewire.redis.embedded import find_binary

TIMEOUT_S: Final = 60.0
"""How long a failover may take on a busy machine; it takes two to three seconds."""
DATA: Final = (
    ("save", '""'), ("appendonly", "yes"), ("repl-diskless-sync-delay", "0"),
    ("repl-ping-replica-period", "1"),
)  # fmt: skip
"""Options of a server that stores data, and is replicated soon."""


@dataclass
class Server:
    """A process of the program, and a client of it."""

    process: subprocess.Popen[bytes]
    port: int
    client: Any

    def role(self) -> str:
        """`master` or `slave`; empty while it does not answer."""
        try:
            reply: Any = self.client.execute_command("ROLE")
        except (RedisError, OSError):
            return ""
        return str(reply[0].decode())

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def launched(directory: Path, port: int, *lines: tuple[str, str], sentinel: bool = False) -> Iterator[Server]:
    """A server with these lines in its file. It may not answer yet."""
    directory.mkdir()
    # Sentinels rewrite their file.
    file = directory / "server.conf"
    options = (("port", str(port)), ("bind", "127.0.0.1"), ("dir", str(directory)), *lines)
    file.write_text("".join(f"{name} {value}\n" for name, value in options))
    command = [str(find_binary(None)), str(file), *["--sentinel"] * sentinel]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as process,
        Redis(host="127.0.0.1", port=port) as client,
    ):
        try:
            yield Server(process, port, client)
        finally:
            process.kill()


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for a state of other processes, which announce it to no one."""
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            if condition():
                return
        except (RedisError, OSError):
            pass
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.02)


def text(word: Any) -> str:
    """A word of a reply."""
    return word.decode() if isinstance(word, bytes) else str(word)
