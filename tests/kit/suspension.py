"""Processes that stand still for a while."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STANDS_S = 10.0


def suspend(pid: int) -> None:
    """Stop a process, and come back when each of its threads stands.

    One thread of it takes the signal and tells the others: until that one has had its turn on a
    processor, they go on.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + STANDS_S
    while not _stands(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} goes on, {STANDS_S} s after it was stopped")
        # Only the parent of a process is told that it has stopped.
        time.sleep(0.001)


def resume(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    suspend(pid)
    try:
        yield
    finally:
        resume(pid)


def _stands(pid: int) -> bool:
    return all(_state(thread) in ("T", None) for thread in Path(f"/proc/{pid}/task").iterdir())


def _state(thread: Path) -> str | None:
    """None: it has ended."""
    try:
        stat = (thread / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The state follows the name, which is in parentheses and may hold some itself.
    return stat.rpartition(") ")[2][0]
