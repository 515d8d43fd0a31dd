"""The row of fairness: one hostile address, or principal, at its limits beside an honest project."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Final

from bench import load_client, provision, servers
from bench.attacks import ATTACKS, Attack, Honest, Scene
from bench.control import MILLI, on_the_loads_core, quantile
from bench.hostile import Part
from bench.pings import LISTENERS, RATE, Latency, deliveries
from bench.report import Goal, Spread, Table
from bench.servers import LOAD_CORE, BenchError, Process

MOST_RATIO: Final = 3.0
ANSWER_S: Final = 20.0
UNTIL_AT_LIMITS_S: Final = 1.0
"""From when the hostile address opened its last connection to the measurement. Before, its connections wait
in the kernel's accept queue, which is one for all addresses (docs/design/overload.md)."""


@dataclass(frozen=True, slots=True)
class Window:
    """The results of the honest project in one run."""

    deliveries: Latency
    requests: Latency


@dataclass(slots=True)
class Ratios:
    """p99 beside the hostile address by the quiet one, of each run."""

    deliveries: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)

    def add(self, quiet: Window, loaded: Window) -> None:
        """Those of one more run."""
        self.deliveries.append(loaded.deliveries.p99 / quiet.deliveries.p99)
        self.requests.append(loaded.requests.p99 / quiet.requests.p99)


def run(*, pairs: int, seconds: float, small: bool, only: Sequence[str]) -> Table:
    """Measure each resource, or `only` these, with and without the hostile address."""
    if unknown := set(only) - ATTACKS.keys():
        raise BenchError(f"no attack is named {', '.join(sorted(unknown))}: {', '.join(ATTACKS)}")
    load = load_client.binary()
    table = Table(
        "fairness",
        "one hostile address at its limits, beside an honest project",
        [
            *("", "deliveries, quiet p50 / p99 ms", "beside it", "p99 ratio"),
            *("requests", "quiet p50 / p99 ms", "beside it", "p99 ratio"),
            *("hostile answers/s", "refused/s", "closed/s"),
        ],
    )
    ratios = {name: Ratios() for name in only or ATTACKS}
    for _ in range(pairs):
        for name, ratio in ratios.items():
            _measure(load, name, seconds, small, ratio, table)
    table.raw = {name: {"deliveries": it.deliveries, "requests": it.requests} for name, it in ratios.items()}
    table.notes += [
        f"{RATE:g} events/s to {LISTENERS} listeners, from the request to the socket; requests on a "
        "connection of their own each, from when they are due to the end of the answer",
        "all limits of the node as they are by default; redis fsync everysec, without maxmemory",
        f"measured from {UNTIL_AT_LIMITS_S:g} s after the hostile address opened its last connection",
        "the hostile address has the load's core when nobody else wants it (SCHED_IDLE); the reactor's turn "
        "is the row `pings`",
    ]
    for name, ratio in ratios.items():
        for what, values in (("deliveries", ratio.deliveries), ("requests", ratio.requests)):
            goal = Goal(f"{name}: p99 of {what} ≤ {MOST_RATIO:g} times the quiet one", "", at_most=MOST_RATIO)
            table.judge(goal, Spread.of(values))
    return table


def _measure(load: str, name: str, seconds: float, small: bool, ratios: Ratios, table: Table) -> None:
    with servers.redis("everysec") as url:
        honest, hostile = [provision.make(url, homes=1, members=1) for _ in range(2)]
        attack = ATTACKS[name](Scene(url, honest, hostile, small))
        with servers.homewire(url, "run", {}) as (process, port), on_the_loads_core():
            # The first use of a key is not measured: the node reads its principal from the store.
            _ask(port, attack.honest, min(1.0, seconds / 4))
            servers.wait_until_quiet(process.pid)
            quiet = _window(load, port, honest, attack.honest, seconds)
            servers.wait_until_quiet(process.pid)
            counts: dict[str, int] = {}
            began = time.monotonic()
            with _hostile(port, attack, counts):
                loaded = _window(load, port, honest, attack.honest, seconds)
            lasted = time.monotonic() - began
    ratios.add(quiet, loaded)
    closed = counts.pop("closed", 0)
    served = sum(count for status, count in counts.items() if status[0] in "12")
    table.add(
        name,
        quiet.deliveries.text(),
        loaded.deliveries.text(),
        f"{ratios.deliveries[-1]:.1f}",
        attack.honest.name,
        quiet.requests.text(),
        loaded.requests.text(),
        f"{ratios.requests[-1]:.1f}",
        f"{served / lasted:,.0f}",
        f"{(sum(counts.values()) - served) / lasted:,.0f}",
        f"{closed / lasted:,.0f}",
    )


@contextmanager
def _hostile(port: int, attack: Attack, counts: dict[str, int]) -> Iterator[None]:
    """Counts its answers by their status, and how many of its connections were closed."""
    told: dict[str, int | list[Part]] = {"port": port, "parts": attack.parts}
    with Process([sys.executable, "-m", "bench.hostile"], LOAD_CORE) as process:
        process.say(json.dumps(told))
        if process.line() != "ready":
            raise BenchError("the hostile address did not begin")
        time.sleep(UNTIL_AT_LIMITS_S)
        yield
        process.end_input()
        counts.update(json.loads(process.line()))


def _window(load: str, port: int, world: provision.World, honest: Honest, seconds: float) -> Window:
    with ThreadPoolExecutor(1) as pool:
        delivered = pool.submit(deliveries, load, port, world, int(RATE * seconds))
        if honest.apart:
            delivered.result()
        requests = _ask(port, honest, seconds)
        return Window(delivered.result(), requests)


def _ask(port: int, honest: Honest, seconds: float) -> Latency:
    """Send requests for some seconds. Raises BenchError if one is refused."""
    start = time.monotonic()
    taken = []
    for number in range(max(2, int(honest.per_s * seconds))):
        due = start + number / honest.per_s
        time.sleep(max(0.0, due - time.monotonic()))
        _answered(port, honest)
        taken.append((time.monotonic() - due) * MILLI)
    taken.sort()
    return Latency(quantile(taken, 0.5), quantile(taken, 0.99))


def _answered(port: int, honest: Honest) -> None:
    request = honest.request
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)) as connection:
        connection.request(request.method, request.path, request.body or None, dict(request.headers))
        with connection.getresponse() as response:
            body = response.read()
    if response.status != honest.status:
        raise BenchError(f"an honest {honest.name} was answered {response.status} {body[:200]!r}")
