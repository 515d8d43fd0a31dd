"""Time in tests: moments of two things that meet, stalled processes, and a wall clock that a test steps."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from homewire.clock import MACHINE_CLOCK
from kit.node import eventually
from kit.tenant import Tenant

ROUNDS: Final = 40
"""Of two things that are to meet in every order; as many more, up to MOST_ROUNDS, as it takes to see either
come first."""
MOST_ROUNDS: Final = 120


def meetings() -> Iterator[tuple[float, float]]:
    """How many seconds to wait before the one thing, and before the other: each in turn is a little later
    than in the rounds before, until the other is over by then on the slowest of machines."""
    for number in range(MOST_ROUNDS):
        later = number**2 / 40_000
        yield (later, 0.0) if number % 2 else (0.0, later)


async def a_later_moment(tenant: Tenant) -> None:
    """Wait until it is later by Redis' clock: what has its time in ms from it came before or after now."""
    client: Any = tenant.redis
    began: tuple[int, int] = await client.time()

    async def is_later() -> bool:
        seconds, microseconds = await client.time()
        return bool((seconds, microseconds // 1000) > (began[0], began[1] // 1000))

    await eventually(is_later)


def now_ms() -> int:
    """This machine's wall clock, as nodes without `steps` read it."""
    return MACHINE_CLOCK.now_ms()


def timestamp(ms: int) -> str:
    """A time as the REST service writes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
        # Only the parent of a process is notified that it has stopped.
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


_SHIM: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *offset_s;

__attribute__((constructor)) static void open_offset(void) {
    int file = open(getenv("STEPPED_CLOCK"), O_RDONLY);
    void *mapped = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    offset_s = mapped == MAP_FAILED ? 0 : mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (offset_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset_s;
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
"""


class SteppedClock:
    """The wall clock of every process that has `environment`."""

    def __init__(self, directory: Path) -> None:
        source, library = directory / "clock.c", directory / "clock.so"
        source.write_text(_SHIM)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        self._offset = directory / "offset"
        self._offset.write_bytes(bytes(8))
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "STEPPED_CLOCK": str(self._offset),
        }

    def step(self, seconds: int) -> None:
        """The clock is so far from the machine's now."""
        with self._offset.open("rb+") as file:
            file.write(struct.pack("=q", seconds))
