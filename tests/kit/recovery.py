"""The processes that recovery tests kill, and subscribers meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from kit.client import Socket, listen
from kit.node import NodeProcess, eventually
from kit.tenant import Account, Tenant, tenant_of
from kit.two_nodes import Pair, Processes, pair_of
from kit.warm import WarmProcess

EVENTS: Final = "/userSession/websocket"
RECEIVED_WITHIN_S: Final = 2.0
"""Of recovery: the contract."""
TIMEOUT_S: Final = 20.0
"""How long it may take here, where machines are busy."""


class Dying:
    """`dying_change.py`, stopped at a step."""

    def __init__(self, process: WarmProcess, step: str) -> None:
        self._process = process
        self._step = step

    async def arrives(self) -> None:
        """Wait until it is at its step."""
        assert await self._receives() == f"at {self._step}"

    def dies(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    async def goes_on(self) -> None:
        """Let it through; its change is answered when this returns."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert await self._receives() == "done"

    async def _receives(self) -> str:
        line = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), TIMEOUT_S)
        return line.strip()


@contextmanager
def dying_change(url: str, step: str, what: str, *arguments: int | str | None) -> Iterator[Dying]:
    program = str(Path(__file__).with_name("dying_change.py"))
    with WarmProcess([program, url, step, what, orjson.dumps(arguments).decode()], os.environ) as process:
        try:
            yield Dying(process, step)
        finally:
            process.kill()


@dataclass
class HomesOnTwoNodes:
    """A user with two homes, a device in the first, and a second user that nothing happens to."""

    pair: Pair
    tenant: Tenant
    owner: Account
    user: Account
    session: str
    home: int
    other_home: int
    device: Account
    stack: AsyncExitStack

    async def listen(self, node: NodeProcess, account: Account, query: str = "") -> Socket:
        return await self.stack.enter_async_context(await listen(node.url, EVENTS + query, account.key))

    async def everywhere(self, account: Account, query: str = "") -> list[Socket]:
        """A socket on each node."""
        return [await self.listen(node, account, query) for node in self.pair.nodes]

    async def command_sockets(self) -> list[Socket]:
        path = f"/devices/{self.device.id}/command"
        return [
            await self.stack.enter_async_context(await listen(node.url, path, self.device.key))
            for node in self.pair.nodes
        ]

    async def announced(self) -> None:
        """Wait until nothing is left in the outbox, and both nodes have applied what was in it."""
        await self.tenant.announced()
        await self.pair.caught_up()

    async def send_when_possible(self, home: int, name: str) -> None:
        """For behind a restart of Redis, which the node may not have noticed yet."""

        async def is_taken() -> bool:
            status, _ = await self.tenant.put(f"/homes/{home}/event", self.tenant.key, {"eventType": name})
            assert status in (204, 503)
            return status == 204

        await eventually(is_taken, TIMEOUT_S)

    async def send(self, home: int, name: str) -> None:
        await self.tenant.send({"homeId": home, "eventType": name})
        await self.pair.caught_up()


@asynccontextmanager
async def homes_on_two_nodes(processes: Processes) -> AsyncIterator[HomesOnTwoNodes]:
    async with (
        pair_of(processes) as pair,
        tenant_of(pair.nodes[0]) as tenant,
        AsyncExitStack() as stack,
    ):
        owner, user = await tenant.user(), await tenant.user()
        home, other = [await tenant.home(owner, members=[user]) for _ in range(2)]
        device = await tenant.device(home)
        session = await tenant.store.sessions.of_token(user.key)
        assert session is not None
        yield HomesOnTwoNodes(pair, tenant, owner, user, session.id, home, other, device, stack)
