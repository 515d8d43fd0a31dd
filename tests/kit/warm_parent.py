"""Has imported homewire, and forks itself into programs that need it: run as a script by `warm.py`.

A node spends most of its start on imports. A child of this process begins behind them: it runs the same
program, in a process, with an environment, arguments and standard streams of its own. There is one thread
here and no event loop, so that a fork finds nothing half done.

An order is one message on the socket: arguments and environment as JSON, with four descriptors: the child's
standard streams, and a pipe for its process id and, when it has ended, its exit status.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

WANTED = ("homewire.app", "homewire.cli.program", "homewire.demo", "pydantic", "typer._adapters", "uvloop")
"""What nodes and the other programs of these tests import, directly or not."""
LARGEST_ORDER = 128 * 1024
NUMBER = struct.Struct("i")
"""Process id, or exit status, as it is written to that pipe."""


def serve(orders: socket.socket) -> list[str]:
    """Fork for each order until the socket of orders closes. Returns only in a child: the program to run."""
    children: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([orders.fileno(), *children], [], [])[0]:
            if ready in children:
                _tell_end(ready, *children.pop(ready))
                continue
            message, given, _, _ = socket.recv_fds(orders, LARGEST_ORDER, 4)
            if not message:
                sys.exit()
            *streams, told = given
            pid = os.fork()
            if pid == 0:
                orders.close()
                _close(told, *children, *(pipe for _, pipe in children.values()))
                return _become(json.loads(message), streams)
            _close(*streams)
            os.write(told, NUMBER.pack(pid))
            children[os.pidfd_open(pid)] = pid, told


def _become(order: dict[str, Any], streams: list[int]) -> list[str]:
    """In the child: what belongs to it alone. Answers its arguments."""
    for number, given in enumerate(streams):
        os.dup2(given, number)
    _close(*streams)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["environment"])
    return list(order["arguments"])


def _tell_end(ended: int, pid: int, told: int) -> None:
    _, status = os.waitpid(pid, 0)
    # The process that started it may have ended.
    with suppress(BrokenPipeError):
        os.write(told, NUMBER.pack(os.waitstatus_to_exitcode(status)))
    _close(told, ended)


def _close(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)


def run(arguments: list[str]) -> None:
    """What `python` does with these arguments: `-m <module> …` or `<script> …`."""
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(arguments[0])
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for name in WANTED:
        importlib.import_module(name)
    # Each takes longer than all else that a program does until it serves.
    sys.modules["homewire.cli.program"].command_tree()
    sys.modules["homewire.settings"].validator()
    # Ctrl-C ends the tests; this process ends when their end of the socket is closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Children share these pages: their collector must not write into them.
    gc.collect()
    gc.freeze()
    run(serve(socket.socket(fileno=int(sys.argv[1]))))
