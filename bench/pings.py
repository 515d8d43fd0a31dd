"""The row of fairness in the reactor's turn: sockets of one user flood pings beside another project."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import load_client, provision, servers
from bench.control import MILLI, NO_LIMITS, on_the_loads_core
from bench.report import Goal, Spread, Table
from bench.servers import LOAD_CORE, BenchError, Process

SOCKETS = 100
RATE = 50.0
LISTENERS = 10
NO_ALLOWANCE = {"inbound_frames_per_s": "0", "inbound_bytes_per_s": "0"}
"""No connection is closed, so only the budget of turns protects the others."""


@dataclass(frozen=True, slots=True)
class Latency:
    """The latencies of one run."""

    p50: float
    p99: float
    """Milliseconds from the request to the socket."""

    def text(self) -> str:
        """Both percentiles, as the table shows them."""
        return f"{self.p50:.1f} / {self.p99:.1f}"


def deliveries(load: str, port: int, world: provision.World, events: int) -> Latency:
    """Send `events` events to subscribers of the world's home. Raises BenchError if one is lost."""
    with load_client.listen(load, port, world.requests(LISTENERS), expected=events) as listener:
        load_client.publish(load, port, world.put_targets(), mode="put", events=events, rate=RATE, depth=8)
        result = listener.result()
    if not result["complete"]:
        raise BenchError(f"events were lost: {result}")
    latency = result["latency"]
    return Latency(latency["p50_us"] / MILLI, latency["p99_us"] / MILLI)


@contextmanager
def _flood(port: int, world: provision.World, sockets: int, counts: dict[str, int]) -> Iterator[None]:
    path, _, authorization = world.requests(1)[0].partition(" ")
    command = [sys.executable, "-m", "bench.flood", str(port), str(sockets), path, authorization]
    # At the lowest priority: the load client measures on the same core and must not wait for it.
    with Process(["nice", "-n", "19", *command], LOAD_CORE) as process:
        if process.line() != "ready":
            raise BenchError("the flood did not begin")
        yield
        process.end_input()
        for name, count in json.loads(process.line()).items():
            counts[name] = counts.get(name, 0) + count


def run(*, pairs: int, seconds: float, small: bool) -> Table:
    """Measure quiet and flooded runs, without an allowance and with the default one."""
    load = load_client.binary()
    sockets = 5 if small else SOCKETS
    events = int(RATE * seconds)
    table = Table(
        "pings",
        f"{sockets} sockets of one user send empty pings as fast as they can, beside others' events",
        ["", "quiet p50 / p99 ms", "flooded p50 / p99 ms", "p99 ratio", "pings/s", "closed/s"],
    )
    ratios: dict[str, list[float]] = {"no allowance": [], "default": []}
    for _ in range(pairs):
        for name, settings in (("no allowance", NO_ALLOWANCE), ("default", {})):
            with servers.redis("everysec") as url:
                honest = provision.make(url, homes=1, members=1)
                hostile = provision.make(url, homes=1, members=1)
                with servers.homewire(url, **NO_LIMITS, **settings) as (process, port), on_the_loads_core():
                    servers.wait_until_quiet(process.pid)
                    quiet = deliveries(load, port, honest, events)
                    counts: dict[str, int] = {}
                    with _flood(port, hostile, sockets, counts):
                        flooded = deliveries(load, port, honest, events)
            ratios[name].append(flooded.p99 / quiet.p99)
            table.add(
                name,
                quiet.text(),
                flooded.text(),
                f"{ratios[name][-1]:.1f}",
                f"{counts['sent'] / 6 / seconds:,.0f}",
                f"{counts['closed'] / seconds:,.1f}",
            )
    table.raw = {"ratios": ratios}
    table.notes.append(f"{RATE:g} events/s to {LISTENERS} listeners; latency from the request to the socket")
    table.notes.append("a client that is closed reconnects at once; redis fsync everysec")
    for name, values in ratios.items():
        table.judge(Goal(f"p99 ≤ 3 times the quiet one, {name}", "ratio", at_most=3), Spread.of(values))
    return table
