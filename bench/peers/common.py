"""What all peers share: commands on standard input, messages, pacing, and one rule for the backlog.

A peer prints ``listening PORT``, then obeys lines like ``events=2000 size=200 rate=0 first=0`` and answers
each with one JSON line when its own buffers are empty again. `rate` is in events per second; 0 is full speed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

TURN = 32
"""Events handed to the library before its loop runs again, at full speed."""
BACKLOG_EVENTS = 64
"""Events that the furthest behind of the sampled clients may wait for, at full speed."""
SAMPLE_STEP = 16
"""Every how many clients the backlog is looked at: looking at all would be measured as the library's work."""
PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class Command:
    """One run: `events` messages of `size` bytes, at `rate` events per second, numbered from `first`."""

    events: int
    size: int
    rate: float
    first: int

    @classmethod
    def parse(cls, line: str) -> Command:
        """Read ``name=value`` words. Raises ValueError or KeyError for anything else."""
        words = dict(word.split("=", 1) for word in line.split())
        return cls(int(words["events"]), int(words["size"]), float(words["rate"]), int(words["first"]))

    def line(self) -> str:
        """What `parse` reads."""
        return f"events={self.events} size={self.size} rate={self.rate} first={self.first}"


def message(sequence: int, size: int) -> str:
    """A stamped message, padded to `size` bytes, as the load client reads it."""
    head = bare(sequence)[:-2]
    return head + "x" * (size - len(head) - 2) + '"}'


def bare(sequence: int) -> str:
    """A stamped message without padding."""
    return f'{{"seq":{sequence},"ts":{time.monotonic_ns()},"lane":0,"pad":""}}'


def say(line: str) -> None:
    """Print one line for the harness, at once."""
    print(line, flush=True)


def answer(command: Command, start: float) -> None:
    """Tell the harness that everything was handed to the kernel."""
    say(json.dumps({"events": command.events, "wall_s": round(time.perf_counter() - start, 6)}))


async def run(
    command: Command, send_all: Callable[[str], Awaitable[None]], backlog: Callable[[], int]
) -> None:
    """Send everything; `backlog` tells how many bytes the furthest behind of the sampled clients waits for.

    The backlog is polled alike for all: not every one of these libraries says when a buffer has emptied.
    """
    start = time.perf_counter()
    for index in range(command.events):
        await send_all(message(command.first + index, command.size))
        if command.rate > 0:
            due = start + (index + 1) / command.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        elif index % TURN == TURN - 1:
            await asyncio.sleep(0)
            while backlog() > BACKLOG_EVENTS * command.size:  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_S)
    while backlog() > 0:  # noqa: ASYNC110
        await asyncio.sleep(PAUSE_S)
    answer(command, start)


async def obey(send_all: Callable[[str], Awaitable[None]], backlog: Callable[[], int]) -> None:
    """Carry out the commands of standard input until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await run(Command.parse(line.decode()), send_all, backlog)
