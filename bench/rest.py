"""Rows of the REST service: reads and saved values beside bare handlers, a list among a million devices."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Final

from bench import load_client, provision, servers
from bench.contestants import PEERS, listening_port
from bench.provision import World, authorization
from bench.report import Goal, Spread, Table, ratio
from bench.servers import SERVER_CORE, CpuMeter, Process
from bench.stores import opened

IN_FLIGHT: Final = 64
"""Connections, each with one request under way."""
PAD: Final = 64
"""Bytes of a saved value beyond what the load client needs itself."""
MICRO: Final = 1e6
FEW_HOMES: Final = 100
MANY_HOMES: Final = 100_000
DEVICES_A_HOME: Final = 10
LISTED: Final = 64
"""Homes whose devices are listed, spread over all."""
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Run:
    """A run of requests, each sent when the last one was answered."""

    per_s: float
    cpu_us: float
    p99_us: float
    busy: float
    """The used share of the server's core; near 1 the server is the bottleneck."""


def get(*, pairs: int, small: bool) -> Table:
    """`GET /devices/{id}` with a user's key, beside a constant answer and the same reads by FastAPI."""
    load = load_client.binary()
    requests = IN_FLIGHT * (10 if small else 400)
    ours: list[Run] = []
    constant: list[Run] = []
    fastapi: list[Run] = []
    with servers.redis("everysec") as url:
        world = provision.make(url, homes=IN_FLIGHT, members=1, devices=IN_FLIGHT)
        targets = device_targets(world)
        with servers.homewire(url, "api") as (process, port):
            measure(load, process, port, targets, "get", requests)
            for _ in range(pairs):
                constant.append(_peer(load, [PEERS["aiohttp"]], targets, "get", requests))
                ours.append(measure(load, process, port, targets, "get", requests))
                words = ["bench.peers.fastapi_redis", url, str(world.project_id)]
                fastapi.append(_peer(load, words, targets, "get", requests))
    table = _table(
        "api-get",
        f"GET /devices/{{id}}, {IN_FLIGHT} in flight, one api worker",
        {
            "an aiohttp handler that says a constant": constant,
            "homewire": ours,
            "FastAPI + redis-py": fastapi,
        },
    )
    goal = Goal("≥ 0.4 times the rate of aiohttp saying a constant", "per_s", at_least=0.4)
    table.judge(goal, ratio(_rates(ours), _rates(constant)))
    goal = Goal("≥ 2 times the rate of FastAPI", "per_s", at_least=2.0)
    table.judge(goal, ratio(_rates(ours), _rates(fastapi)))
    return table


def put_value(*, pairs: int, small: bool) -> Table:
    """`PUT /homes/{id}/kv/{key}` with a user's key, saved and announced, beside a handler that says 204."""
    load = load_client.binary()
    requests = IN_FLIGHT * (10 if small else 200)
    ours: list[Run] = []
    bare: list[Run] = []
    with servers.redis("everysec") as url:
        world = provision.make(url, homes=IN_FLIGHT, members=1, devices=0)
        targets = [f"/homes/{it.home_id}/kv/light {authorization(it.user_keys[0])}" for it in world.homes]
        with servers.homewire(url, "api") as (process, port):
            measure(load, process, port, targets, "value", requests)
            for _ in range(pairs):
                bare.append(_peer(load, [PEERS["aiohttp"]], targets, "value", requests))
                ours.append(measure(load, process, port, targets, "value", requests))
    table = _table(
        "api-kv",
        f"PUT /homes/{{id}}/kv/{{key}}, {IN_FLIGHT} in flight, one api worker",
        {"an aiohttp handler that says 204": bare, "homewire": ours},
    )
    goal = Goal("≥ 0.25 times the rate of aiohttp saying 204", "per_s", at_least=0.25)
    table.judge(goal, ratio(_rates(ours), _rates(bare)))
    return table


def listing(*, pairs: int, small: bool) -> Table:
    """`GET /devices?homeId` among a thousand devices and among a million."""
    load = load_client.binary()
    many = 1_000 if small else MANY_HOMES
    requests = LISTED * (5 if small else 100)
    runs: dict[str, list[Run]] = {}
    sizes = []
    with servers.redis("everysec") as few_url, servers.redis("everysec") as many_url:
        targets = []
        for url, homes in ((few_url, FEW_HOMES), (many_url, many)):
            lines, size = asyncio.run(_populate(url, homes))
            targets.append(lines)
            sizes.append(size)
        with (
            servers.homewire(few_url, "api") as (few_process, few_port),
            servers.homewire(many_url, "api") as (many_process, many_port),
        ):
            some = ((few_process, few_port, targets[0]), (many_process, many_port, targets[1]))
            for process, port, lines in some:
                measure(load, process, port, lines, "get", requests)
            for _ in range(pairs):
                for (process, port, lines), homes in zip(some, (FEW_HOMES, many), strict=True):
                    name = f"among {homes * DEVICES_A_HOME:,} devices"
                    runs.setdefault(name, []).append(measure(load, process, port, lines, "get", requests))
    table = _table("api-list", f"GET /devices?homeId, {DEVICES_A_HOME} devices a home", runs)
    few, most = runs.values()
    goal = Goal("≤ 1.3 times the time among a thousand", "per_s", at_most=1.3)
    table.judge(goal, ratio(_rates(few), _rates(most)))
    table.notes.append(
        f"memory of Redis per device, key and share of its home included: {sizes[1]:,.0f} bytes"
    )
    return table


def device_targets(world: World) -> list[str]:
    """The device of each home, asked for by its owner."""
    return [f"/devices/{it.device_id} {authorization(it.user_keys[0])}" for it in world.homes]


def measure(load: str, process: Process, port: int, targets: list[str], mode: str, requests: int) -> Run:
    """One run against a server that is ready."""
    servers.wait_until_quiet(process.pid)
    meter = CpuMeter(process.pid)
    account = load_client.publish(
        load, port, targets, mode=mode, events=requests, connections=IN_FLIGHT, pad=PAD
    )
    cpu = meter.seconds()
    return Run(
        account["events_per_s"],
        cpu / requests * MICRO,
        account["latency"]["p99_us"],
        cpu / account["wall_s"],
    )


def _peer(load: str, module: list[str], targets: list[str], mode: str, requests: int) -> Run:
    with Process([sys.executable, "-m", *module], SERVER_CORE) as process:
        port = listening_port(process)
        servers.wait_for(lambda: servers.accepts(port), process)
        measure(load, process, port, targets, mode, requests)
        return measure(load, process, port, targets, mode, requests)


async def _populate(url: str, homes: int) -> tuple[list[str], float]:
    """So many homes with their devices; requests for some of them, and Redis' memory per device in bytes.

    Devices are made by the store's own script; homes as their script would make them, without a record of
    each: there is nobody to hear of them.
    """
    from homewire.auth import tokens
    from homewire.devices.store import CREATE_DEVICE
    from homewire.projects.models import AccountSystem, KeyScope
    from homewire.store.accounting import NO_QUOTAS
    from homewire.store.keys import IDS, ProjectSlot

    async with opened(url) as (store, redis):
        project = await store.projects.create("bench", AccountSystem.EMAIL)
        _, key = await store.project_keys.create(project.id, "bench", frozenset({KeyScope.READ}))
        slot = ProjectSlot(project.id)
        before = (await redis.info("memory"))["used_memory_dataset"]
        await redis.script_load(CREATE_DEVICE.text)
        last = int(await redis.incrby(IDS, homes * (DEVICES_A_HOME + 1)))
        home_ids = range(last - homes * (DEVICES_A_HOME + 1) + 1, last + 1, DEVICES_A_HOME + 1)
        for start in range(0, homes, PAGE // DEVICES_A_HOME):
            async with redis.pipeline(transaction=False) as pipeline:
                for home in home_ids[start : start + PAGE // DEVICES_A_HOME]:
                    pipeline.hset(slot.home(home), mapping={"created": 1, "name": "Home", "owners": 1})
                    pipeline.zadd(slot.homes, {str(home): home})
                    for device in range(home + 1, home + 1 + DEVICES_A_HOME):
                        _, reference = tokens.mint(project.id)
                        names = [
                            *(slot.project, slot.outbox, slot.device(device), slot.devices),
                            *(slot.device_places, slot.claim_codes, slot.key(reference.hash)),
                            *(slot.home(home), slot.home_devices(home), slot.usage, slot.expiring),
                        ]
                        words = [device, 1, "sensor", "", "", reference.hash, f"CODE{device:08}", home]
                        words.append(NO_QUOTAS.as_argument())
                        pipeline.execute_command("EVALSHA", CREATE_DEVICE.sha, len(names), *names, *words)
                await pipeline.execute()
        after = (await redis.info("memory"))["used_memory_dataset"]
        listed = home_ids[:: max(1, homes // LISTED)][:LISTED]
        lines = [f"/devices?homeId={home} {authorization(key)}" for home in listed]
        return lines, (after - before) / (homes * DEVICES_A_HOME)


def _rates(runs: list[Run]) -> list[float]:
    return [run.per_s for run in runs]


def _table(name: str, title: str, runs: dict[str, list[Run]]) -> Table:
    table = Table(name, title, ["", "requests/s", "server CPU µs/request", "p99 ms", "server core used"])
    for contestant, done in runs.items():
        table.add(
            contestant,
            Spread.of(_rates(done)).text(0),
            Spread.of([run.cpu_us for run in done]).text(1),
            Spread.of([run.p99_us / 1000 for run in done]).text(2),
            Spread.of([run.busy for run in done]).text(2),
        )
    table.raw = {contestant: _rates(done) for contestant, done in runs.items()}
    return table
