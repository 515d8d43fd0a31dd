"""Redis dies while permissions are being revoked: a recorded revocation ends delivery."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from random import Random
from typing import Final

import pytest

from kit.client import CLOSE, TEXT, Socket, listen
from kit.node import eventually
from kit.tenant import Account, StoreError, Tenant, tenant_of
from kit.two_nodes import Pair, Processes, pair_of, running_pair

HOLDERS: Final = 24
STREAMS: Final = 3
ANSWERED: Final = (1, 12)
"""How many of the revocations are answered before the kill."""
LATER_S: Final = 0.005
"""Up to which it comes later than that: a revocation and its relay."""
ACCESS_ENDED: Final = 4500
TIMEOUT_S: Final = 10.0


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Of one test alone: it kills one of them."""
    with running_pair() as started:
        yield started


async def revoke_until_redis_dies(
    tenant: Tenant, permission: str, holders: list[Account], pair: Pair, random: Random
) -> None:
    waiting, answered, reached = list(holders), 0, asyncio.Event()
    enough = random.randint(*ANSWERED)

    async def one_after_the_other() -> None:
        nonlocal answered
        try:
            while waiting:
                await tenant.revoke(waiting.pop().id, permission)
                answered += 1
                if answered == enough:
                    reached.set()
        except StoreError:
            return  # Whether it happened is what the record says.

    streams = [asyncio.create_task(one_after_the_other()) for _ in range(STREAMS)]
    await reached.wait()
    # The moment is the test's subject: nothing is waited for.
    await asyncio.sleep(random.uniform(0, LATER_S))
    pair.server.kill()
    await asyncio.gather(*streams)


async def announced(tenant: Tenant, pair: Pair) -> None:
    """Nothing is left in the outbox, and both nodes have applied what was in it."""
    await tenant.announced()
    await pair.caught_up()


async def send_when_possible(tenant: Tenant, home: int, name: str) -> None:
    """The node may not have noticed yet that Redis is there again."""

    async def is_taken() -> bool:
        status, _ = await tenant.put(f"/homes/{home}/event", tenant.key, {"eventType": name})
        assert status in (204, 503)
        return status == 204

    await eventually(is_taken, TIMEOUT_S)


async def test_lost_permission_closes_and_kept_permission_delivers(processes: Processes) -> None:
    seed = int(os.environ.get("HOMEWIRE_SEED", secrets.randbelow(10**9)))
    print(f"HOMEWIRE_SEED={seed}")  # Shown if it fails.
    random = Random(seed)
    async with pair_of(processes) as pair:
        await recovery(pair, random)


async def recovery(pair: Pair, random: Random) -> None:
    """One death of Redis, and what connections receive after it."""
    async with (
        tenant_of(pair.nodes[0], access_control="permission") as tenant,
        AsyncExitStack() as stack,
    ):
        home = await tenant.home(await tenant.user())
        permission = f"read:home-events:{home}"
        path = f"/userSession/websocket?homeId={home}"
        holders, sockets = [], dict[int, list[Socket]]()
        for _ in range(HOLDERS):
            holder = await tenant.user()
            await tenant.grant(holder.id, permission)
            sockets[holder.id] = [
                await stack.enter_async_context(await listen(node.url, path, holder.key))
                for node in pair.nodes
            ]
            holders.append(holder)
        await tenant.send({"homeId": home, "eventType": "before"})
        await pair.caught_up()

        # One keeps it, however many revocations the moment leaves time for.
        await revoke_until_redis_dies(tenant, permission, holders[1:], pair, random)
        pair.server.start()
        # Long before the next sweep of the relay (`test_intervals_of_relay_keep_the_contract`).
        await announced(tenant, pair)
        await send_when_possible(tenant, home, "after")

        lost = 0
        for holder in holders:
            keeps = await tenant.store.permissions.held(tenant.project, holder.id, [permission])
            lost += not keeps
            for socket in sockets[holder.id]:
                assert await socket.receive_type() == "before"
                frame = await socket.receive(TIMEOUT_S)
                if keeps:
                    assert frame.opcode == TEXT
                    assert b"after" in frame.payload
                else:
                    assert (frame.opcode, frame.close_code) == (CLOSE, ACCESS_ENDED)
        assert 0 < lost < HOLDERS
