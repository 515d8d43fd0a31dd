"""Row of Redis Cluster: a delivery's CPU on a cluster of three masters, beside that on one Redis."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from bench import load_client, provision, servers
from bench.contestants import Homewire, Plan
from bench.fanout import Run, measure
from bench.report import Goal, Spread, Table, ratio

ONE, CLUSTER = "homewire on one Redis", "homewire on a cluster"
MASTERS = 3
Start = Callable[[str], AbstractContextManager[str]]
GOAL = Goal("CPU per delivery ≤ 1.15 times that on one Redis", "cost_us", ONE, at_most=1.15)


def _start(stack: ExitStack, load: str, start: Start, plan: Plan) -> Homewire:
    url = stack.enter_context(start("everysec"))
    world = provision.make(url, homes=plan.homes, members=plan.connections // plan.homes)
    process, port = stack.enter_context(servers.homewire(url))
    return Homewire(load, process, port, plan, world)


def run(*, pairs: int, seconds: float, small: bool) -> Table:
    """One Redis and the cluster in turns. The homes are in all shards, so each bulk reaches all masters."""
    homes, rate = (20, 500.0) if small else (1_000, 10_000.0)
    plan = Plan(
        3 * homes, homes, max(1, int(rate * seconds / homes)), 1, rate=rate, batch=20, publishers=4, depth=4
    )  # fmt: skip
    load = load_client.binary()
    starts: dict[str, Start] = {ONE: servers.redis, CLUSTER: partial(servers.redis_cluster, masters=MASTERS)}
    runs: dict[str, list[Run]] = {name: [] for name in starts}
    with ExitStack() as stack:
        nodes = {name: _start(stack, load, start, plan) for name, start in starts.items()}
        for node in nodes.values():
            # Not counted: the first run of a process fills its caches.
            measure(load, node, plan)
        for _ in range(pairs):
            for name, node in nodes.items():
                servers.wait_until_quiet(node.pid)
                runs[name].append(measure(load, node, plan))
    return _table(plan, runs, pairs)


def _table(plan: Plan, runs: dict[str, list[Run]], pairs: int) -> Table:
    title = f"{plan.connections:,} clients of {plan.homes:,} homes, {plan.rate:,.0f} events/s in bulks of 20"
    table = Table("cluster", title, ["", "CPU µs/delivery", "times one Redis", "p50 ms", "p99 ms"])
    costs = {name: [run.cost_us for run in done] for name, done in runs.items()}
    for name, done in runs.items():
        table.add(
            name,
            Spread.of(costs[name]).text(2),
            ratio(costs[name], costs[ONE]).text(2),
            Spread.of([run.p50_us / 1000 for run in done]).text(2),
            Spread.of([run.p99_us / 1000 for run in done]).text(2),
        )
    table.judge(GOAL, ratio(costs[CLUSTER], costs[ONE]))
    table.notes.append(
        f"redis fsync everysec; {MASTERS} masters without replicas; {pairs} pairs, alternating"
    )
    table.raw = dict(costs)
    return table
