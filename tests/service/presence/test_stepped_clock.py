"""The wall clock of a node and its Redis is stepped, as NTP does on a hub without a battery."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.client import listen
from kit.clock import SteppedClock
from kit.in_redis import NODES
from kit.node import eventually, running_node
from kit.tenant import Tenant, tenant_of

HOUR = 3600
LEASE_S = 3.0
RENEWALS = 5
"""Behind a step, until nothing more is expected of it: a lease is renewed thrice in its time, and dead nodes
are looked for ten times."""


async def renewed(tenant: Tenant, times: int) -> None:
    """Wait until the lease of the only node was renewed so often."""
    for _ in range(times):
        before = await tenant.redis.zrange(NODES, 0, -1, withscores=True)

        async def is_renewed(before: object = before) -> bool:
            return bool(await tenant.redis.zrange(NODES, 0, -1, withscores=True) != before)

        await eventually(is_renewed, 60)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forward", "backward"])
async def test_stepped_clock_announces_no_device_gone(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    clock = SteppedClock(short_directory)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    data = short_directory / "data"
    with running_node(data, cold=True, presence_lease_s=LEASE_S) as node:
        async with tenant_of(node) as tenant:
            owner = await tenant.user()
            home = await tenant.home(owner)
            device = await tenant.device(home)
            path = "/userSession/websocket"
            async with await listen(node.url, path, owner.key, receives_presence=True) as listener:
                async with await listen(node.url, f"/devices/{device.id}/command", device.key) as socket:
                    assert (await listener.receive_json())["eventType"] == "_deviceConnected_"
                    boots = await tenant.redis.zrange(NODES, 0, -1)
                    # Until dead nodes are looked for at all, which is not at once behind a start.
                    await renewed(tenant, RENEWALS)
                    clock.step(seconds)
                    await renewed(tenant, RENEWALS)
                    assert (await tenant.store.presence.of(tenant.project, [device.id]))[device.id].connected
                    assert await tenant.redis.zrange(NODES, 0, -1) == boots
                    record = tenant.slot.device_presence(device.id)
                    assert not await tenant.redis.hexists(record, "disconnected")
                    assert await socket.is_alive()
                # Had the device been announced gone and back, that would stand in front of this.
                assert (await listener.receive_json())["eventType"] == "_deviceDisconnected_"
            # A session that is used goes on.
            async with tenant.http.get("/userSession", headers={"Authorization": owner.key}) as answer:
                assert answer.status == 200
