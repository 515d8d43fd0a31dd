"""Rows of control records: the time of a revocation under load, and its effect on other connections."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import aiohttp

from bench import load_client, provision, servers
from bench.provision import authorization
from bench.report import Goal, Spread, Table
from bench.servers import LOAD_CORE, BenchError, Process
from bench.stores import opened
from homewire.projects.models import AccountSystem
from homewire.sessions.models import ClientInfo

MILLI = 1e3
NANOSECOND = 1e-9
SOCKETS = 10
"""Of the user whose membership ends."""
EVENTS = 200
EVENTS_PER_S = 100.0
HEAD_START_S = 1.0
"""The load runs this long before the first membership ends."""
Changes: TypeAlias = Callable[[str, int, int], Coroutine[Any, Any, list[float]]]
"""So many changes, with the Redis and the node of this port; of each the seconds to the last close."""
NO_LIMITS = {"address_connections": "0", "project_connections": "0", "user_connections": "0"}


@contextmanager
def on_the_loads_core() -> Iterator[None]:
    """Keep this process off the router's core meanwhile."""
    before = os.sched_getaffinity(0)
    if LOAD_CORE in before:
        os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def publish_in_background(
    pool: ThreadPoolExecutor, load: str, port: int, world: provision.World, events: int, rate: float
) -> Future[dict[str, Any]]:
    return pool.submit(
        load_client.publish,
        load,
        port,
        world.put_targets(),
        mode="put",
        events=events,
        rate=rate,
        depth=8,
    )


# -- a membership ends --


async def _removals(url: str, port: int, trials: int) -> list[float]:
    """For each removal the seconds from its call to the close frame of the user's last socket."""
    async with opened(url) as (store, _):
        project = await store.projects.create("removals", AccountSystem.EMAIL)
        owner = await store.users.create(project.id, "owner", email="owner@example.com")
        home = await store.homes.create(project.id, "home", owner.id)
        leaver = await store.users.create(project.id, "leaver", email="leaver@example.com")
        _, key = await store.sessions.open(
            project.id, leaver.id, "bench", ClientInfo("127.0.0.1", user_agent="bench")
        )
        taken = []
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for _ in range(trials):
                await store.homes.add_member(project.id, home.id, leaver.id)
                sockets = [await open_socket(http, home.id, key) for _ in range(SOCKETS)]
                asked = time.monotonic()
                removal = asyncio.create_task(store.homes.remove_member(project.id, home.id, leaver.id))
                await asyncio.gather(*map(closed, sockets))
                taken.append(time.monotonic() - asked)
                await removal
        return taken


async def open_socket(http: aiohttp.ClientSession, home: int, key: str) -> aiohttp.ClientWebSocketResponse:
    path = f"/userSession/websocket?homeId={home}"
    return await http.ws_connect(path, headers={"Authorization": authorization(key)})


async def closed(socket: aiohttp.ClientWebSocketResponse) -> None:
    message = await socket.receive(timeout=10)
    if message.type is not aiohttp.WSMsgType.CLOSE:
        raise BenchError(f"a connection that should be closed received {message.type.name}")


def removal(*, pairs: int, small: bool) -> Table:
    """`member remove` on one node, the last socket shrunk on another that delivers 50,000 a second."""
    return closing("removal", "member remove", "removals", _removals, pairs=pairs, small=small)


def closing(name: str, verb: str, noun: str, changes: Changes, *, pairs: int, small: bool) -> Table:
    """How soon after each of these changes the last of its user's sockets is closed on another node."""
    load = load_client.binary()
    clients, rate, trials = (20, 20.0, 5) if small else (1_000, 50.0, 60)
    table = Table(
        name,
        f"{verb} → the last of {SOCKETS} sockets closed on the other node, under "
        f"{clients * rate:,.0f} deliveries/s",
        ["", "p50 ms", "p99 ms", "most ms", "deliveries/s meanwhile"],
    )
    p99 = []
    for _ in range(pairs):
        with servers.redis("always") as url:
            world = provision.make(url, homes=1, members=1)
            with servers.homewire(url, **NO_LIMITS) as (process, port):
                taken, delivered = under_load(changes, load, url, process, port, world, clients, rate, trials)
        ordered = sorted(taken)
        p99.append(quantile(ordered, 0.99) * MILLI)
        table.add(
            "homewire",
            f"{quantile(ordered, 0.5) * MILLI:.1f}",
            f"{p99[-1]:.1f}",
            f"{ordered[-1] * MILLI:.1f}",
            f"{delivered:,.0f}",
        )
    table.raw = {"p99_ms": p99}
    table.notes.append(f"{trials} {noun} a run; redis fsync always; the change made by another process")
    table.judge(Goal("p99 ≤ 100 ms", "p99", at_most=100), Spread.of(p99))
    return table


def under_load(
    changes: Changes,
    load: str,
    url: str,
    process: Process,
    port: int,
    world: provision.World,
    clients: int,
    rate: float,
    trials: int,
) -> tuple[list[float], float]:
    """The seconds of so many `changes` while `clients` listen to `rate` events a second, and deliveries/s."""
    with (
        load_client.listen(load, port, world.requests(clients), idle=True),
        ThreadPoolExecutor(1) as pool,
        on_the_loads_core(),
    ):
        before = servers.metrics(port)["homewire_deliveries_total"]
        began = time.monotonic()
        # Longer than the changes take; what is left is waited for.
        publishing = publish_in_background(pool, load, port, world, int(rate * (trials * 0.12 + 4)), rate)
        time.sleep(HEAD_START_S)
        taken = asyncio.run(changes(url, port, trials))
        if publishing.done():
            raise BenchError("the load ended before the last change")
        delivered = servers.metrics(port)["homewire_deliveries_total"] - before
        seconds = time.monotonic() - began
        publishing.result()
        servers.wait_until_quiet(process.pid)
    return taken, delivered / seconds


# -- a project is disabled --


def disabling(*, pairs: int, small: bool) -> Table:
    """End 10,000 connections of one project at once; measure the deliveries of another project."""
    load = load_client.binary()
    many, homes, clients = (60, 20, 10) if small else (10_000, 3_333, 1_000)
    table = Table(
        "disabling",
        f"{many:,} connections of one project disabled at once, beside {clients:,} listeners at 100 events/s",
        ["", "closed after s", "p99 of the others ms", "undisturbed p99 ms"],
    )
    seconds, ratios = [], []
    for _ in range(pairs):
        with servers.redis("always") as url:
            dead = provision.make(url, homes=homes, members=3, devices=0)
            others = provision.make(url, homes=1, members=1)
            with servers.homewire(url, **NO_LIMITS) as (process, port), on_the_loads_core():
                requests = dead.requests(many)
                with load_client.listen(load, port, requests, idle=True) as idle:
                    servers.wait_until_quiet(process.pid)
                    quiet, _ = _events(load, port, others, clients)
                    servers.wait_until_quiet(process.pid)
                    disturbed, called = _events(load, port, others, clients, partial(_disable, url, dead))
                    idle.process.end_input()
                    closed = idle.result()
        if closed["closed"] != many:
            raise BenchError(f"{closed['closed']} of {many} were closed: {closed}")
        seconds.append(closed["last_closed_ns"] * NANOSECOND - called)
        ratios.append(disturbed / quiet)
        table.add("homewire", f"{seconds[-1]:.2f}", f"{disturbed:.1f}", f"{quiet:.1f}")
    table.raw = {"seconds": seconds, "ratios": ratios}
    table.notes.append("200 events in 2 s from the moment of the call; redis fsync always")
    table.judge(Goal("closed in ≤ 2 s", "seconds", at_most=2), Spread.of(seconds))
    table.judge(Goal("others' p99 ≤ 2 times the undisturbed", "ratio", at_most=2), Spread.of(ratios))
    return table


def _disable(url: str, world: provision.World) -> None:
    async def disable() -> None:
        async with opened(url) as (store, _):
            await store.projects.disable(world.project_id)

    asyncio.run(disable())


def _events(
    load: str,
    port: int,
    world: provision.World,
    clients: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Two seconds of events to new listeners: their p99 in ms, and when `meanwhile` was called."""
    with (
        load_client.listen(load, port, world.requests(clients), expected=EVENTS) as listener,
        ThreadPoolExecutor(1) as pool,
    ):
        called = time.monotonic()
        task = pool.submit(meanwhile)
        load_client.publish(
            load, port, world.put_targets(), mode="put", events=EVENTS, rate=EVENTS_PER_S, depth=8
        )
        result = listener.result()
        task.result()
    if not result["complete"]:
        raise BenchError(f"others lost events: {result}")
    return result["latency"]["p99_us"] / MILLI, called


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
