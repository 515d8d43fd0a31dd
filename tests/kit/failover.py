"""What a client sees while masters of a Redis change: events that are taken, and what a socket receives."""

from __future__ import annotations

import json

from kit.client import CLOSE, Socket
from kit.redis_processes import TIMEOUT_S
from kit.tenant import Tenant


async def is_taken(tenant: Tenant, home: int, name: str) -> bool:
    """Whether an event is acknowledged. While no master serves its shard it is refused."""
    status, _ = await tenant.put(f"/homes/{home}/event", tenant.key, {"eventType": name})
    assert status in (204, 503), status
    return status == 204


async def receive_until(socket: Socket, last: str) -> tuple[list[str], int | None]:
    """The events of a socket up to `last`, or up to its close, with the code."""
    received: list[str] = []
    while True:
        frame = await socket.receive(TIMEOUT_S)
        if frame.opcode == CLOSE:
            return received, frame.close_code
        received.append(json.loads(frame.payload)["eventType"])
        if received[-1] == last:
            return received, None
