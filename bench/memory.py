"""Row of the memory: what an idle connection costs the router, with all its caches and indexes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench import contestants, load_client, provision, servers
from bench.contestants import Plan
from bench.report import Goal, Spread, Table

KB = 1024
WARM_CONNECTIONS = 200
LISTENERS_A_HOME = 3


def _per_connection(load: str, pid: int, port: int, requests: list[str]) -> tuple[float, float]:
    """KB of anonymous and of written private memory per connection, held idle."""
    servers.wait_until_quiet(pid)
    anonymous, private = servers.memory_of(pid)
    with load_client.listen(load, port, requests, idle=True):
        servers.wait_until_quiet(pid)
        anonymous_after, private_after = servers.memory_of(pid)
    count = len(requests) * KB
    return (anonymous_after - anonymous) / count, (private_after - private) / count


def _warm(load: str, port: int, requests: list[str]) -> None:
    """Open connections once, so that code and pools that the first ones load are not counted."""
    with load_client.listen(load, port, requests[:WARM_CONNECTIONS], idle=True):
        return


@contextmanager
def _homewire(homes: int, members: int) -> Iterator[tuple[int, int, provision.World]]:
    with servers.redis("everysec") as url:
        world = provision.make(url, homes=homes, members=members, devices=0)
        with servers.homewire(url) as (process, port):
            yield process.pid, port, world


def _homewire_once(load: str, connections: int, one_user: bool) -> tuple[float, float]:
    # Other users warm the server up than those that are counted.
    spare = -(-WARM_CONNECTIONS // LISTENERS_A_HOME)
    homes = 1 if one_user else connections // LISTENERS_A_HOME + 1 + spare
    with _homewire(homes, 1 if one_user else LISTENERS_A_HOME) as (pid, port, world):
        if one_user:
            requests = world.requests(connections)
            _warm(load, port, requests)
            return _per_connection(load, pid, port, requests)
        keyed = [
            f"/userSession/websocket?homeId={home.home_id} {provision.authorization(key)}"
            for home in world.homes
            for key in home.user_keys
        ]
        _warm(load, port, keyed)
        return _per_connection(load, pid, port, keyed[WARM_CONNECTIONS:][:connections])


def _peer_once(load: str, name: str, connections: int) -> tuple[float, float]:
    requests = contestants.plain_requests(Plan(connections, 1, 0, 0))
    with contestants.peer(name, Plan(connections, 1, 0, 0)) as peer:
        _warm(load, peer.port, requests)
        return _per_connection(load, peer.pid, peer.port, requests)


def run(*, pairs: int, small: bool, with_homewire: bool = True) -> Table:
    """Idle connections of as many users, of one user, and of the peers."""
    load = load_client.binary()
    connections = 300 if small else 10_000
    table = Table(
        "memory",
        f"{connections:,} idle connections, KB each",
        ["", "RssAnon KB", "Private_Dirty KB"],
    )
    table.notes.append(
        f"beyond a server warmed by {WARM_CONNECTIONS} connections; kernel memory not included"
    )
    goals = {
        "homewire, users as many": Goal("≤ 1.5 KB per connection of as many users", "kb", at_most=1.5),
        "homewire, one user": Goal("≤ 0.7 KB per connection of one user", "kb", at_most=0.7),
    }
    if with_homewire:
        for contestant, goal in goals.items():
            done = [_homewire_once(load, connections, "one user" in contestant) for _ in range(pairs)]
            _add(table, contestant, done)
            table.judge(goal, Spread.of([anonymous for anonymous, _ in done]))
    for name in contestants.PEERS:
        _add(table, name, [_peer_once(load, name, connections)])
    return table


def _add(table: Table, contestant: str, done: list[tuple[float, float]]) -> None:
    anonymous = Spread.of([run[0] for run in done])
    private = Spread.of([run[1] for run in done])
    table.add(contestant, anonymous.text(2), private.text(2))
    table.raw[contestant] = done
