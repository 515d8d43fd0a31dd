"""Row of the handshake: server CPU per WebSocket, authenticated; beside it plain aiohttp, which is not."""

from __future__ import annotations

from bench import contestants, load_client, provision, servers
from bench.contestants import Plan
from bench.report import Goal, Spread, Table, ratio
from bench.servers import CpuMeter

MICRO = 1e6


def _cost(load: str, pid: int, port: int, requests: list[str]) -> float:
    """CPU microseconds per connection opened."""
    servers.wait_until_quiet(pid)
    meter = CpuMeter(pid)
    with load_client.listen(load, port, requests, idle=True):
        cpu = meter.seconds()
    servers.wait_until_quiet(pid)
    return cpu / len(requests) * MICRO


def run(*, pairs: int, small: bool, with_homewire: bool = True) -> Table:
    """Cold: the key of each connection is new to the node. Warm: all connections have one known key."""
    load = load_client.binary()
    count = 100 if small else 2_000
    plain = contestants.plain_requests(Plan(count, 1, 0, 0))
    costs: dict[str, list[float]] = {"plain aiohttp, no authentication": []}
    warm, cold = "homewire, warm", "homewire, cold"
    if with_homewire:
        costs |= {warm: [], cold: []}
        with servers.redis("everysec") as url:
            world = provision.make(url, homes=count * pairs, members=1, devices=0)
            with servers.homewire(url) as (process, port):
                one_user = [world.requests(1)[0]] * count
                every_user = world.requests(count * pairs)
                _cost(load, process.pid, port, one_user)
                for pair in range(pairs):
                    costs["plain aiohttp, no authentication"].append(_aiohttp(load, plain))
                    costs[warm].append(_cost(load, process.pid, port, one_user))
                    others = every_user[pair * count : (pair + 1) * count]
                    costs[cold].append(_cost(load, process.pid, port, others))
    else:
        costs["plain aiohttp, no authentication"] += [_aiohttp(load, plain) for _ in range(pairs)]
    for name in ("uws", "picows", "websockets"):
        with contestants.peer(name, Plan(count, 1, 0, 0)) as peer:
            _cost(load, peer.pid, peer.port, plain)
            costs[name] = [_cost(load, peer.pid, peer.port, plain)]
    table = Table("handshake", f"{count:,} handshakes", ["", "server CPU µs each"])
    for contestant, values in costs.items():
        table.add(contestant, Spread.of(values).text(0))
    table.raw = dict(costs)
    if with_homewire:
        goal = Goal("warm ≤ plain aiohttp without authentication", "cost", at_most=1.0)
        table.judge(goal, ratio(costs[warm], costs["plain aiohttp, no authentication"]))
    return table


def _aiohttp(load: str, requests: list[str]) -> float:
    with contestants.peer("aiohttp", Plan(len(requests), 1, 0, 0)) as peer:
        _cost(load, peer.pid, peer.port, requests)
        return _cost(load, peer.pid, peer.port, requests)
