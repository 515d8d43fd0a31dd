"""Rows of the fan-out: CPU per delivery beside the kernel floor and other servers, and latency."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench import contestants, daemons, load_client, provision, servers
from bench.contestants import Contestant, Homewire, Plan
from bench.report import Goal, Spread, Table, ratio
from bench.servers import BenchError, CpuMeter

MICRO = 1e6
BURST_FRAMES = 32
"""Frames per send of the floor at full speed, when homewire is not there to say how many it writes."""
SLOW = frozenset({"floor1", "picows", "websockets", "aiohttp", "nchan"})
SLOW_SHARE = 5
"""At full speed these contestants send a fifth of the events: a full run would last a minute."""


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one contestant in one run."""

    deliveries: int
    cpu_s: float
    wall_s: float
    p50_us: float
    p99_us: float
    max_us: float
    frames_per_write: float
    client_cpu_s: float

    @property
    def cost_us(self) -> float:
        """Server CPU microseconds per delivery."""
        return self.cpu_s / self.deliveries * MICRO

    @property
    def per_cpu_s(self) -> float:
        """Deliveries per server CPU second."""
        return self.deliveries / self.cpu_s


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the figures. `beside` are further contestants, `goals` the bounds to be reached."""

    name: str
    title: str
    plan: Plan
    beside: tuple[str, ...]
    goals: tuple[Goal, ...]


def measure(load: str, contestant: Contestant, plan: Plan) -> Run:
    """One run against a started server. Raises BenchError unless every event arrived once and in order."""
    expected = plan.warm_per_home + plan.per_home
    with load_client.listen(
        load,
        contestant.port,
        contestant.requests(),
        expected=expected,
        skip=plan.warm_per_home,
        sample=plan.sample,
        pause_us=plan.pause_us,
        subject=contestant.subject,
        welcome=contestant.welcome,
    ) as listener:
        contestant.opened()
        if plan.warm_per_home:
            contestant.send(plan.warm_per_home, 0)
        servers.wait_until_quiet(contestant.pid)
        delivered, written = contestant.counts()
        meter = CpuMeter(contestant.pid)
        contestant.send(plan.per_home, plan.warm_per_home)
        result = listener.result()
        cpu = meter.seconds()
    if not result["complete"]:
        raise BenchError(f"{type(contestant).__name__}: not everything arrived once and in order: {result}")
    delivered_after, written_after = contestant.counts()
    writes = written_after - written
    latency = result["latency"]
    return Run(
        deliveries=plan.per_home * plan.connections,
        cpu_s=cpu,
        wall_s=result["window_s"],
        p50_us=latency["p50_us"],
        p99_us=latency["p99_us"],
        max_us=latency["max_us"],
        frames_per_write=(delivered_after - delivered) / writes if writes else 0.0,
        client_cpu_s=result["cpu_s"],
    )


def _one(load: str, name: str, plan: Plan, frames: int) -> Run:
    """A fresh floor or peer, one run."""
    if name in SLOW and not plan.rate:
        plan = replace(plan, per_home=max(1, plan.per_home // SLOW_SHARE))
    if name == "floor":
        with contestants.floor(load, plan, frames) as started:
            return measure(load, started, plan)
    if name == "floor1":
        with contestants.floor(load, plan, 1) as started:
            return measure(load, started, plan)
    if name in daemons.DAEMONS:
        with daemons.start(load, name, plan) as daemon:
            return measure(load, daemon, plan)
    with contestants.peer(name, plan) as started_peer:
        return measure(load, started_peer, plan)


def _present(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The available contestants; prints a line for each other one. BenchError for unknown names."""
    if unknown := set(names) - {"floor1", *contestants.PEERS, *daemons.DAEMONS}:
        raise BenchError(f"no such contestant: {', '.join(sorted(unknown))}")
    skipped = {name: why for name in names if name in daemons.DAEMONS and (why := daemons.missing(name))}
    for why in skipped.values():
        print(why, file=sys.stderr, flush=True)
    return [name for name in names if name not in skipped], list(skipped.values())


def run(
    row: Row,
    *,
    pairs: int,
    fsync: str,
    with_homewire: bool = True,
    frames: int = 0,
    only: Sequence[str] = (),
) -> Table:
    """`pairs` rounds of floor, homewire and the others, after one round of homewire that is not counted."""
    load = load_client.binary()
    plan = row.plan
    frames = frames or (1 if plan.rate else BURST_FRAMES)
    present, skipped = _present(only or row.beside)
    names = ["floor", *present]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with ExitStack() as stack:
        homewire: Homewire | None = None
        if with_homewire:
            runs["homewire"] = []
            homewire = _start_homewire(stack, load, plan, fsync)
            # All contestants send messages of homewire's real size.
            plan = replace(plan, size=homewire.calibrate())
            frames = max(1, round(measure(load, homewire, plan).frames_per_write))
            servers.wait_until_quiet(homewire.pid)
        for _ in range(pairs):
            runs["floor"].append(_one(load, "floor", plan, frames))
            if homewire is not None:
                runs["homewire"].append(measure(load, homewire, plan))
                servers.wait_until_quiet(homewire.pid)
                frames = max(1, round(runs["homewire"][-1].frames_per_write))
            for name in names[1:]:
                runs[name].append(_one(load, name, plan, frames))
    notes = [f"redis fsync {fsync}; {plan.size}-byte messages; {pairs} pairs, alternating", *skipped]
    if not plan.rate:
        notes.append(
            "the floor stamps its frames before it starts: its latencies here are the whole run's length"
        )
    return _table(row, runs, notes)


def _start_homewire(stack: ExitStack, load: str, plan: Plan, fsync: str) -> Homewire:
    url = stack.enter_context(servers.redis(fsync))
    members = -(-plan.connections // plan.homes) if plan.homes > 1 else 1
    world = provision.make(
        url, homes=plan.homes, members=max(1, min(members, plan.connections // plan.homes))
    )
    process, port = stack.enter_context(servers.homewire(url))
    return Homewire(load, process, port, plan, world)


def _table(row: Row, runs: dict[str, list[Run]], notes: list[str]) -> Table:
    table = Table(
        row.name,
        row.title,
        [
            "",
            "CPU µs/delivery",
            "deliveries/CPU-s",
            "p50 ms",
            "p99 ms",
            "frames/write",
            "wall s",
            "client CPU s",
        ],
        notes=notes,
    )
    for name, done in runs.items():
        if not done:
            continue
        table.add(
            name,
            Spread.of([run.cost_us for run in done]).text(3),
            Spread.of([run.per_cpu_s for run in done]).count(),
            Spread.of([run.p50_us / 1000 for run in done]).text(2),
            Spread.of([run.p99_us / 1000 for run in done]).text(2),
            Spread.of([run.frames_per_write for run in done]).text(1),
            Spread.of([run.wall_s for run in done]).text(2),
            Spread.of([run.client_cpu_s for run in done]).text(2),
        )
    if "homewire" in runs:
        for goal in row.goals:
            if goal.against in runs:
                ours = [getattr(run, goal.attribute) for run in runs["homewire"]]
                theirs = [getattr(run, goal.attribute) for run in runs[goal.against]]
                table.judge(goal, ratio(ours, theirs))
    table.raw = {
        name: [
            {
                "cost_us": run.cost_us,
                "p99_us": run.p99_us,
                "wall_s": run.wall_s,
                "frames": run.frames_per_write,
            }
            for run in done
        ]
        for name, done in runs.items()
    }
    return table


def rows(seconds: float, small: bool) -> dict[str, Row]:
    """All fan-out rows; `seconds` is how long the paced ones last."""
    many, thousand, tens = (60, 30, 20) if small else (10_000, 1_000, 3_333)
    burst, burst_many = (200, 60) if small else (2_000, 300)
    spread_rate = 500.0 if small else 20_000.0
    listed = [
        Row(
            "fanout-paced",
            f"{thousand:,} clients of one home, 100 events/s, end to end",
            Plan(thousand, 1, int(100 * seconds), 20 if small else 100, rate=100, depth=8),
            daemons.DAEMONS,
            (
                Goal("CPU per delivery ≤ 1.15 times floor", "cost_us", "floor", at_most=1.15),
                Goal("p99 ≤ 2 times the floor's", "p99_us", "floor", at_most=2.0),
            ),
        ),
        Row(
            "fanout-homes",
            f"{many:,} clients, {tens:,} homes, {spread_rate:,.0f} events/s in bulk",
            Plan(
                many,
                tens,
                max(1, int(spread_rate * seconds / tens)),
                1,
                rate=spread_rate,
                batch=50 if small else 200,
                publishers=4,
                depth=4,
                pause_us=1_000,
            ),
            (),
            (Goal("CPU per delivery ≤ 1.5 times floor", "cost_us", "floor", at_most=1.5),),
        ),
        Row(
            "fanout-bulks",
            f"{many:,} clients, {tens:,} homes, {spread_rate / 2:,.0f} events/s in bulks of 20",
            Plan(
                many,
                tens,
                max(1, int(spread_rate / 2 * seconds / tens)),
                1,
                rate=spread_rate / 2,
                batch=20,
                publishers=4,
                depth=4,
            ),
            ("centrifugo",),
            (Goal("p99 ≤ Centrifugo's", "p99_us", "centrifugo", at_most=1.0),),
        ),
        _burst("fanout-burst", thousand, burst, 0.7, daemons.DAEMONS),
        # The daemons take part in this one by --only: a run of NATS took a minute when it was tried.
        _burst("fanout-burst-10k", many, burst_many, 0.6, ()),
    ]
    return {row.name: row for row in listed}


def _burst(name: str, clients: int, events: int, share: float, further: tuple[str, ...]) -> Row:
    goals = [Goal(f"≥ {share} times floor at the same frames per send", "per_cpu_s", "floor", at_least=share)]
    goals.append(Goal("ahead of uWebSockets", "per_cpu_s", "uws", at_least=1.0))
    goals.append(Goal("≥ 20 times plain aiohttp", "per_cpu_s", "aiohttp", at_least=20.0))
    return Row(
        name,
        f"{clients:,} clients of one home, {events:,} events in bulk at full speed",
        Plan(clients, 1, events, 32, batch=250, depth=4, sample=16),
        ("floor1", "uws", "picows", "websockets", "aiohttp", *further),
        tuple(goals if clients <= 1_000 or "10k" not in name else goals[:1]),
    )
