"""The contestants of a fan-out: the kernel floor, homewire and peers. Each is started anew and pinned."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import load_client, servers
from bench.peers.common import Command
from bench.provision import World, authorization
from bench.servers import SERVER_CORE, Process

SEQUENCE_DIGITS = 3
"""Digits that the number of a measured event has more than the first one."""

PEERS = {
    "uws": "bench.peers.socketify_uws",
    "picows": "bench.peers.picows_server",
    "websockets": "bench.peers.websockets_server",
    "aiohttp": "bench.peers.aiohttp_plain",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One fan-out: every home gets `per_home` events after `warm_per_home` that are not measured.

    `rate` in events per second over all homes (0: full speed), `batch` events per bulk request (0: single
    PUTs), `size` of a message on the socket in bytes, `pause_us` between two looks of the client
    at its sockets.
    """

    connections: int
    homes: int
    per_home: int
    warm_per_home: int
    rate: float = 0
    batch: int = 0
    size: int = 200
    publishers: int = 1
    depth: int = 1
    sample: int = 1
    pause_us: int = 0


class Contestant(ABC):
    """A started server. The CPU time of `pid` is measured."""

    process: Process
    port: int
    subject = ""
    """What listeners subscribe to, if the server speaks NATS."""
    welcome = False
    """Whether the first message of a connection only says that it is subscribed."""

    @property
    def pid(self) -> int:
        """The process that is measured."""
        return self.process.pid

    @abstractmethod
    def requests(self) -> list[str]:
        """Request lines of the listeners."""

    def opened(self) -> None:
        """Called when all subscribers are open."""
        return

    @abstractmethod
    def send(self, per_home: int, first: int) -> dict[str, Any]:
        """Offer `per_home` events to each home, numbered from `first`; returns the sender's account of it."""

    def counts(self) -> tuple[float, float]:
        """Deliveries and writes so far, where the contestant counts them; else zeros."""
        return 0.0, 0.0


def plain_requests(plan: Plan) -> list[str]:
    """Request lines for servers without authentication."""
    return [f"/userSession/websocket?homeId={index % plan.homes}" for index in range(plan.connections)]


class Floor(Contestant):
    """The bare loop of `send()`, with `frames` frames each."""

    def __init__(self, process: Process, port: int, plan: Plan, frames: int) -> None:
        self.process, self.port, self.plan, self.frames = process, port, plan, frames
        self.deliveries, self.sends = 0.0, 0.0
        self.next = 0

    def requests(self) -> list[str]:
        """One connection per client, grouped by home."""
        return plain_requests(self.plan)

    def opened(self) -> None:
        """Wait until the floor has accepted all of them."""
        if (line := self.process.line()) != "ready":
            raise servers.BenchError(f"the floor said {line}")

    def send(self, per_home: int, first: int) -> dict[str, Any]:
        """One command. The floor goes on counting by itself, which must come to the same."""
        plan = self.plan
        if first != self.next:
            raise servers.BenchError(f"the floor is at {self.next}, not at {first}")
        self.next += per_home
        words = f"events={per_home * plan.homes} frames={self.frames} size={plan.size} rate={plan.rate}"
        self.process.say(f"{words} burst={max(plan.batch, self.frames)}")
        answer: dict[str, Any] = json.loads(self.process.line())
        self.deliveries += answer["deliveries"]
        self.sends += answer["sends"]
        return answer

    def counts(self) -> tuple[float, float]:
        """From its own answers."""
        return self.deliveries, self.sends


class Peer(Contestant):
    """One of bench/peers: all clients subscribe to one home."""

    def __init__(self, process: Process, port: int, plan: Plan) -> None:
        self.process, self.port, self.plan = process, port, plan

    def requests(self) -> list[str]:
        """One connection per client."""
        return plain_requests(self.plan)

    def send(self, per_home: int, first: int) -> dict[str, Any]:
        """One command."""
        self.process.say(Command(per_home, self.plan.size, self.plan.rate, first).line())
        answer: dict[str, Any] = json.loads(self.process.line())
        return answer


class Homewire(Contestant):
    """homewire end to end: HTTP in, Redis, sockets."""

    def __init__(self, load: str, process: Process, port: int, plan: Plan, world: World) -> None:
        self.load, self.process, self.port, self.plan, self.world = load, process, port, plan, world
        self.pad = 0

    def requests(self) -> list[str]:
        """One connection per client, with the keys of the homes' members."""
        return self.world.requests(self.plan.connections)

    def send(self, per_home: int, first: int) -> dict[str, Any]:
        """Through the publisher, over HTTP."""
        plan, world = self.plan, self.world
        bulk = plan.batch > 0
        return load_client.publish(
            self.load,
            self.port,
            world.bulk_targets() if bulk else world.put_targets(),
            mode="bulk" if bulk else "put",
            events=per_home * plan.homes,
            authorization=authorization(world.project_key),
            rate=plan.rate,
            batch=plan.batch or 1,
            connections=plan.publishers,
            depth=plan.depth,
            pad=self.pad,
            first=first,
        )

    def counts(self) -> tuple[float, float]:
        """From its own counters."""
        counters = servers.metrics(self.port)
        return counters["homewire_deliveries_total"], counters["homewire_writes_total"]

    def calibrate(self) -> int:
        """Choose the padding so that a message has the plan's size; returns the resulting size."""
        size = 0
        for _ in range(2):
            with load_client.listen(self.load, self.port, self.requests()[:1], expected=1) as listener:
                self.send(1, 0)
                result = listener.result()
            if not result["complete"]:
                raise servers.BenchError(f"the first event did not arrive: {result}")
            size = int(result["payload_bytes"])
            # Sequence numbers become longer by so many digits.
            wanted = self.plan.size - size - SEQUENCE_DIGITS
            if self.pad or wanted <= 0:
                break
            self.pad = wanted
        return size + SEQUENCE_DIGITS


@contextmanager
def floor(load: str, plan: Plan, frames: int) -> Iterator[Floor]:
    """Start the kernel floor."""
    with Process([load, "floor", "--connections", str(plan.connections)], SERVER_CORE) as process:
        yield Floor(process, listening_port(process), plan, max(1, frames))


@contextmanager
def peer(name: str, plan: Plan) -> Iterator[Peer]:
    """Start one of PEERS."""
    with Process([sys.executable, "-m", PEERS[name]], SERVER_CORE) as process:
        yield Peer(process, listening_port(process), plan)


def listening_port(process: Process) -> int:
    """The port that a floor or peer printed."""
    word, _, port = process.line().partition(" ")
    if word != "listening":
        raise servers.BenchError(f"{process.name} said {word}")
    return int(port)
