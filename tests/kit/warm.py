"""Programs of ours that start quickly, because they are forked from a process that has imported homewire.

They are processes like any other. Only the imports are spared: a second of processor time for each of a few
hundred starts. `running_node(cold=True)` starts homewire as users do. So does the node that all tests of a
session share, and each test that runs `sys.executable`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from kit.warm_parent import NUMBER

PARENT = Path(__file__).with_name("warm_parent.py")
COMMAND_S = 20.0
PYTHON_PATH = os.pathsep.join(str(Path(__file__).parents[2] / each) for each in ("python", "tests"))


class WarmProcess:
    """A program with pipes for its input and output: what tests need of `subprocess.Popen`, by those names.

    `arguments` are what comes behind `python`; standard error goes to the descriptor `stderr`.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: int = 2) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self._told, told = os.pipe()
        order = json.dumps({"arguments": list(arguments), "environment": dict(environment)})
        given = (theirs_in, theirs_out, stderr, told)
        socket.send_fds(_parent(), [order.encode()], given)
        for each in (theirs_in, theirs_out, told):
            os.close(each)
        self.stdin = open(ours_in, "w")  # noqa: SIM115
        self.stdout = open(ours_out)  # noqa: SIM115
        self.pid = _number(self._told)
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        # It may have ended and not be told yet, as with `subprocess.Popen`.
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit status (negative: the signal), None while it runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once there is one. Raises subprocess.TimeoutExpired after so many seconds."""
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0)
        return status

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = _number(self._told)
            os.close(self._told)
        return self.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stdout.close()
        if not self.stdin.closed:
            self.stdin.close()
        self.wait()


async def run_homewire(*words: object) -> str:
    """What a command of homewire prints; it must succeed."""
    with WarmProcess(("-m", "homewire.cli", *map(str, words)), os.environ) as process:
        printed = await asyncio.wait_for(asyncio.to_thread(process.stdout.read), COMMAND_S)
        assert await asyncio.to_thread(process.wait, COMMAND_S) == 0
    return printed


def _number(pipe: int) -> int:
    (number,) = NUMBER.unpack(os.read(pipe, NUMBER.size))
    return int(number)


@cache
def _parent() -> socket.socket:
    """Where orders go. Its other end is the parent process, which ends when this end is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    command = [sys.executable, str(PARENT), str(theirs.fileno())]
    process = subprocess.Popen(command, env=environment, pass_fds=(theirs.fileno(),))
    theirs.close()

    def close() -> None:
        ours.close()
        process.wait()

    atexit.register(close)
    return ours
