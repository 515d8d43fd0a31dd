"""Row of TLS: the added cost of a delivery if homewire terminates TLS and each socket has a TLS bridge.

The Rust load client has no TLS. Here a Python client (`bench.tls_client`) counts messages and sends the
events for both, plain and TLS, so that the ratio is of the servers alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import load_client, provision, servers
from bench.provision import World
from bench.report import Spread, Table, ratio
from bench.servers import LOAD_CORE, BenchError, CpuMeter, Process

MICRO = 1e6
RATE = 100
WARM_EVENTS = 20
PLAIN, TLS = "homewire", "homewire, TLS ended here"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one of the two."""

    cost_us: float
    """Server CPU microseconds per delivery, including the ingest of the events."""
    client_cpu_s: float


def _certificate(directory: Path) -> dict[str, str]:
    """Settings of a node with a certificate of the benchmark's own."""
    import trustme

    issued = trustme.CA().issue_cert("127.0.0.1")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return {"tls_cert": str(certificate), "tls_key": str(key)}


@contextmanager
def _client(port: int, world: World, connections: int, tls: bool) -> Iterator[Process]:
    with load_client.lines_file([*world.put_targets(), *world.requests(connections)]) as path:
        command = [sys.executable, "-m", "bench.tls_client", str(port), path]
        with Process([*command, "--tls"] if tls else command, LOAD_CORE) as process:
            if (word := process.line()) != "ready":
                raise BenchError(f"the client said {word}")
            yield process


def _send(client: Process, events: int) -> dict[str, Any]:
    """Let the client send events and receive them on every connection."""
    client.say(f"{events} {RATE}")
    result: dict[str, Any] = json.loads(client.line())
    if not result["complete"]:
        raise BenchError(f"not everything arrived once: {result}")
    return result


def _measure(process: Process, port: int, world: World, connections: int, events: int, tls: bool) -> Run:
    with _client(port, world, connections, tls) as client:
        _send(client, WARM_EVENTS)
        servers.wait_until_quiet(process.pid)
        meter = CpuMeter(process.pid)
        result = _send(client, events)
        cpu = meter.seconds()
    servers.wait_until_quiet(process.pid)
    return Run(cpu / (events * connections) * MICRO, result["cpu_s"])


def run(*, pairs: int, seconds: float, small: bool) -> Table:
    """Plain and TLS in turns, on one Redis."""
    connections = 20 if small else 200
    events = round(RATE * seconds)
    runs: dict[str, list[Run]] = {PLAIN: [], TLS: []}
    with tempfile.TemporaryDirectory(prefix="hwbench") as directory, servers.redis("everysec") as url:
        world = provision.make(url, homes=1, members=1)
        with_tls = _certificate(Path(directory))
        for _ in range(pairs):
            for name, settings in ((PLAIN, {}), (TLS, with_tls)):
                # One at a time: a second node would read every event, too, on the same core.
                with servers.homewire(url, **settings) as (process, port):
                    measured = _measure(process, port, world, connections, events, bool(settings))
                    runs[name].append(measured)
    title = f"{connections} clients of one home, {RATE} events/s, end to end"
    table = Table("tls", title, ["", "CPU µs/delivery", "times plain", "client CPU s"])
    plain = [run.cost_us for run in runs[PLAIN]]
    for name, done in runs.items():
        costs = [run.cost_us for run in done]
        table.add(
            name,
            Spread.of(costs).text(2),
            ratio(costs, plain).text(2),
            Spread.of([run.client_cpu_s for run in done]).text(2),
        )
    table.notes.append(f"redis fsync everysec; {pairs} pairs, alternating; a Python client for both")
    table.raw = {name: [run.cost_us for run in done] for name, done in runs.items()}
    return table
