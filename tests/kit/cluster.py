"""A Redis Cluster of three masters and three replicas: real processes of the embedded server's program."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from redis.crc import key_slot

from kit.clock import resume, suspend
from kit.node import reserved_port
from kit.redis_processes import DATA, TIMEOUT_S, Server, launched, text, wait_until

MASTERS: Final = 3
SLOTS: Final = 16384
NODE_TIMEOUT_MS: Final = 2000
"""How long a master must be silent until its replica takes over."""


@dataclass
class ClusterSet:
    """What runs, and the URL by which a node finds it."""

    servers: list[Server]
    """The masters at the start, and then the replica of each."""
    url: str

    def master_of(self, slot: int) -> Server:
        """The server that serves a slot, as all that run agree."""
        found: list[Server] = []

        def agreed() -> bool:
            ports = {_slots(each)[slot] for each in self._running()}
            found[:] = [each for each in self._running() if {each.port} == ports]
            return bool(found)

        wait_until(agreed)
        return found[0]

    def replica_of(self, master: Server) -> Server:
        """The server that replicates a master."""
        return next(
            each for each in self._running() if each.role() == "slave" and _master_port(each) == master.port
        )

    def kill_master(self, slot: int) -> None:
        """kill -9 of the master of a slot; wait until its replica was elected and all know it."""
        killed = self.master_of(slot)
        killed.kill()
        self.until_replaced(killed, slot)

    def until_replaced(self, killed: Server, slot: int) -> None:
        """Wait until all know another master of a slot."""
        wait_until(lambda: self.is_whole() and self.master_of(slot) is not killed)

    def fail_over(self, slot: int) -> None:
        """Have a healthy master and its replica change their roles; wait until all know it."""
        old = self.master_of(slot)
        self.replica_of(old).client.execute_command("CLUSTER", "FAILOVER")
        wait_until(lambda: self.master_of(slot) is not old and old.role() == "slave")

    @contextmanager
    def without_replication(self, slot: int) -> Iterator[Server]:
        """What is written to the master of a slot meanwhile is lost if that is killed meanwhile."""
        master = self.master_of(slot)
        replica = self.replica_of(master)
        suspend(replica.process.pid)
        try:
            master.client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            yield master
        finally:
            resume(replica.process.pid)

    def until_in_sync(self) -> None:
        """Wait until each replica has what its master has."""
        for master in self._running():
            if master.role() == "master":
                wait_until(lambda master=master: master.client.execute_command("WAIT", 1, 1000))  # type: ignore[misc]

    @contextmanager
    def moving(self, slot: int, target: Server | None = None) -> Iterator[SlotMove]:
        """Move a slot to another master, in three steps: it is announced, its keys move, it is reassigned.

        The body runs between the first and the second; what the `SlotMove` has not moved by then moves
        behind the body.
        """
        source = self.master_of(slot)
        masters = [each for each in self._running() if each.role() == "master"]
        target = target or next(each for each in masters if each is not source)
        source_id, target_id = (
            text(each.client.execute_command("CLUSTER", "MYID")) for each in (source, target)
        )
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        move = SlotMove(slot, source, target)
        yield move
        while move.move_keys():
            pass
        # The target first: the source would otherwise send clients to a server that does not serve yet.
        for each in (target, source, *masters):
            each.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        wait_until(lambda: self.master_of(slot) is target)

    def is_whole(self) -> bool:
        """Whether all that run say that all slots are served."""
        return all(_state(each)["cluster_state"] == "ok" for each in self._running())

    def _running(self) -> list[Server]:
        return [each for each in self.servers if each.process.poll() is None]


@dataclass
class SlotMove:
    """A slot between two masters."""

    slot: int
    source: Server
    target: Server

    def move_keys(self, count: int = 100) -> int:
        """Move at most `count` keys; how many there were."""
        keys = self.source.client.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            address = ("127.0.0.1", self.target.port, "", 0, round(TIMEOUT_S * 1000))
            self.source.client.execute_command("MIGRATE", *address, "KEYS", *keys)
        return len(keys)


def slot_of(key: str | bytes) -> int:
    """The slot of a key."""
    return key_slot(key.encode() if isinstance(key, str) else key)


@contextmanager
def running_cluster(node_timeout_ms: int = NODE_TIMEOUT_MS) -> Iterator[ClusterSet]:
    """All six, and all of them know each other, all slots and the replicas."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hw-cluster-")))
        servers, bus_ports = [], []
        for number in range(2 * MASTERS):
            port, bus_port = (stack.enter_context(reserved_port()) for _ in range(2))
            lines = (
                ("cluster-enabled", "yes"), ("cluster-port", str(bus_port)),
                ("cluster-node-timeout", str(node_timeout_ms)), ("cluster-allow-replica-migration", "no"),
            )  # fmt: skip
            server = launched(directory / str(number), port, *DATA, *lines)
            servers.append(stack.enter_context(server))
            bus_ports.append(bus_port)
        for each in servers:
            wait_until(each.client.ping)
        _join(servers, bus_ports)
        cluster = ClusterSet(
            servers, f"redis+cluster://{','.join(f'127.0.0.1:{each.port}' for each in servers)}"
        )
        wait_until(cluster.is_whole)
        cluster.until_in_sync()
        yield cluster


def _join(servers: list[Server], bus_ports: list[int]) -> None:
    masters, replicas = servers[:MASTERS], servers[MASTERS:]
    for number, master in enumerate(masters):
        first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
        master.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        master.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    # Each meets each: that takes less time than the gossip.
    for one, other in combinations(range(len(servers)), 2):
        address = ("127.0.0.1", servers[other].port, bus_ports[other])
        servers[one].client.execute_command("CLUSTER", "MEET", *address)
    for each in servers:
        wait_until(lambda each=each: _state(each)["cluster_known_nodes"] == str(len(servers)))  # type: ignore[misc]
    for master, replica in zip(masters, replicas, strict=True):
        name = master.client.execute_command("CLUSTER", "MYID")
        # It may not know the master by its final name yet.
        wait_until(lambda: replica.client.execute_command("CLUSTER", "REPLICATE", name))  # noqa: B023


def _state(server: Server) -> dict[str, str]:
    reply: Any = server.client.execute_command("CLUSTER INFO")
    return dict(reply)


def _slots(server: Server) -> dict[int, int]:
    """The port of the master of each slot, as a server knows it."""
    reply: Any = server.client.execute_command("CLUSTER SLOTS")
    return {
        slot: int(master[1]) for first, last, master, *_ in reply for slot in range(int(first), int(last) + 1)
    }


def _master_port(replica: Server) -> int:
    return int(replica.client.execute_command("ROLE")[2])
