"""Nodes on one Redis whose devices connect and disconnect, and a listener of their home."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from homewire.devices.models import DevicePresence
from homewire.presence.store import NODE_PREFIX
from homewire.store.keys import ProjectSlot
from kit.client import Socket, listen
from kit.node import EVENTUALLY_S, NodeProcess, eventually, running_node
from kit.redis_server import BusServer, running_server
from kit.tenant import Account, Tenant, tenant_of

LEASE_S: Final = 5.0
BY_LEASE_S: Final = LEASE_S + 15.0
"""Far beyond what anything takes that begins with the end of a lease."""
CAME, WENT = "_deviceConnected_", "_deviceDisconnected_"


@contextmanager
def running_nodes(count: int, **settings: Any) -> Iterator[tuple[BusServer, Sequence[NodeProcess]]]:
    """So many nodes on a Redis of their own, with short leases."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hw-")))
        chosen = {"presence_lease_s": LEASE_S, "redis_url": server.url, **settings}
        nodes = [stack.enter_context(running_node(directory / f"data{n}", **chosen)) for n in range(count)]
        yield server, nodes


@dataclass
class WatchedHome:
    """A home, its owner and one device; `listener` receives the home on the last node."""

    tenant: Tenant
    nodes: Sequence[NodeProcess]
    owner: Account
    home: int
    device: Account
    listener: Socket
    sockets: list[Socket] = field(default_factory=list)
    """Every command socket that was opened; they are dropped at the end."""
    _fences: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    async def connect(self, node: int = 0, device: Account | None = None, **options: Any) -> Socket:
        """A command socket of the device."""
        device = device or self.device
        socket = await listen(self.nodes[node].url, f"/devices/{device.id}/command", device.key, **options)
        self.sockets.append(socket)
        return socket

    async def receive(self, count: int, within: float = EVENTUALLY_S) -> list[tuple[int, str]]:
        """The next events of the home, so many: of which device, and what."""
        received = [await self.listener.receive_json(within) for _ in range(count)]
        return [(event["originDeviceId"], event["eventType"]) for event in received]

    async def nothing_more(self) -> None:
        """The home has no event after the last one that was received."""
        name = f"fence {next(self._fences)}"
        await self.tenant.store.presence.of(self.tenant.project, [self.device.id])
        async with self.nodes[-1].client() as http:
            body = {"eventType": name}
            headers = {"Authorization": self.tenant.key}
            async with http.put(f"/homes/{self.home}/event", json=body, headers=headers) as answer:
                assert answer.status == 204
        received = await self.listener.receive_json()
        assert received["eventType"] == name, received

    async def is_held_by(self, nodes: int) -> None:
        """Wait until so many nodes have written that they hold the device: no handshake waits for that."""
        record = ProjectSlot(self.tenant.project).device_presence(self.device.id)

        async def holds() -> bool:
            fields: Any = await self.tenant.redis.hkeys(record)
            return len([field for field in fields if field.startswith(NODE_PREFIX.encode())]) == nodes

        await eventually(holds)

    async def is_connected(self, device: Account | None = None) -> bool:
        return (await self.presence(device)).connected

    async def presence(self, device: Account | None = None) -> DevicePresence:
        """What the store says of the device."""
        device = device or self.device
        return (await self.tenant.store.presence.of(self.tenant.project, [device.id]))[device.id]

    async def becomes(
        self, connected: bool, within: float = EVENTUALLY_S, device: Account | None = None
    ) -> None:
        """Wait until the store says so."""

        async def holds() -> bool:
            return await self.is_connected(device) is connected

        await eventually(holds, within)


@asynccontextmanager
async def watched_home(nodes: Sequence[NodeProcess]) -> AsyncIterator[WatchedHome]:
    async with AsyncExitStack() as stack:
        tenant = await stack.enter_async_context(tenant_of(nodes[-1]))
        owner = await tenant.user()
        home = await tenant.home(owner)
        device = await tenant.device(home)
        listener = await stack.enter_async_context(
            await listen(tenant.url, "/userSession/websocket", owner.key, receives_presence=True)
        )
        watched = WatchedHome(tenant, nodes, owner, home, device, listener)
        try:
            yield watched
        finally:
            for socket in watched.sockets:
                await socket.drop()
