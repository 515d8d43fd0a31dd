"""Rows of the ingest: single `PUT`s beside a bare aiohttp handler, and bulk events per second."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bench import contestants, load_client, provision, servers
from bench.report import Goal, Spread, Table, ratio
from bench.servers import SERVER_CORE, CpuMeter, Process

MICRO = 1e6
FSYNCS = ("everysec", "always")
PUT_CONNECTIONS = 32
PUT_PAD = 64
BULK_HOMES = 100
BULK_PAD = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """One closed-loop run."""

    per_s: float
    cpu_us: float
    p99_us: float
    busy: float
    """The used share of the server's core; near 1 the server is the bottleneck."""


def _measure(load: str, pid: int, port: int, targets: list[str], **how: object) -> Rate:
    servers.wait_until_quiet(pid)
    meter = CpuMeter(pid)
    account = load_client.publish(load, port, targets, **how)  # type: ignore[arg-type]
    cpu = meter.seconds()
    events = account["events"]
    return Rate(
        account["events_per_s"], cpu / events * MICRO, account["latency"]["p99_us"], cpu / account["wall_s"]
    )


def put(*, pairs: int, small: bool) -> Table:
    """`PUT /devices/{id}/event` as fast as it is answered, beside an aiohttp handler that says 204."""
    load = load_client.binary()
    events = PUT_CONNECTIONS * (10 if small else 500)
    how = {"mode": "put", "events": events, "connections": PUT_CONNECTIONS, "pad": PUT_PAD}
    runs: dict[str, list[Rate]] = {"aiohttp 204": []}
    for fsync in FSYNCS:
        ours = runs.setdefault(f"homewire, fsync {fsync}", [])
        with servers.redis(fsync) as url:
            world = provision.make(url, homes=PUT_CONNECTIONS, members=1, devices=PUT_CONNECTIONS)
            with servers.homewire(url) as (process, port):
                _measure(load, process.pid, port, world.put_targets(), **how)
                for _ in range(pairs):
                    runs["aiohttp 204"].append(_aiohttp_put(load, how))
                    ours.append(_measure(load, process.pid, port, world.put_targets(), **how))
    table = _table("ingest-put", "PUT /devices/{id}/event, one worker", runs)
    for index, fsync in enumerate(FSYNCS):
        theirs = runs["aiohttp 204"][index * pairs : (index + 1) * pairs]
        ours = runs[f"homewire, fsync {fsync}"]
        goal = Goal(f"≥ 0.4 times the rate of aiohttp saying 204 (fsync {fsync})", "per_s", at_least=0.4)
        table.judge(goal, ratio([run.per_s for run in ours], [run.per_s for run in theirs]))
    return table


def _aiohttp_put(load: str, how: dict[str, object]) -> Rate:
    targets = [f"/devices/{number}/event" for number in range(PUT_CONNECTIONS)]
    with Process([sys.executable, "-m", contestants.PEERS["aiohttp"]], SERVER_CORE) as process:
        port = contestants.listening_port(process)
        _measure(load, process.pid, port, targets, **how)
        return _measure(load, process.pid, port, targets, **how)


def bulk(*, pairs: int, small: bool) -> Table:
    """`POST /events` in batches of 1,000 over 100 homes, four connections, as fast as they are answered."""
    load = load_client.binary()
    homes = 10 if small else BULK_HOMES
    events = homes * (50 if small else 5_000)
    runs: dict[str, list[Rate]] = {}
    for fsync in FSYNCS:
        done = runs.setdefault(f"homewire, fsync {fsync}", [])
        for _ in range(pairs):
            # A new Redis each time: trimming the entries of earlier runs would cost time in this one.
            with servers.redis(fsync) as url:
                world = provision.make(url, homes=homes, members=1)
                with servers.homewire(url) as (process, port):
                    how = {
                        "mode": "bulk",
                        "batch": 1_000,
                        "connections": 4,
                        "pad": BULK_PAD,
                        "authorization": provision.authorization(world.project_key),
                    }
                    _measure(load, process.pid, port, world.bulk_targets(), events=homes * 10, **how)
                    done.append(_measure(load, process.pid, port, world.bulk_targets(), events=events, **how))
    table = _table("ingest-bulk", "POST /events in batches of 1,000, one worker", runs)
    goal = Goal("≥ 100 k events/s, fsync everysec", "per_s", at_least=100_000)
    table.judge(goal, Spread.of([run.per_s for run in runs["homewire, fsync everysec"]]))
    return table


def _table(name: str, title: str, runs: dict[str, list[Rate]]) -> Table:
    table = Table(name, title, ["", "events/s", "server CPU µs/event", "p99 ms", "server core used"])
    for contestant, done in runs.items():
        table.add(
            contestant,
            Spread.of([run.per_s for run in done]).text(0),
            Spread.of([run.cpu_us for run in done]).text(1),
            Spread.of([run.p99_us / 1000 for run in done]).text(2),
            Spread.of([run.busy for run in done]).text(2),
        )
    table.raw = {contestant: [run.per_s for run in done] for contestant, done in runs.items()}
    return table
