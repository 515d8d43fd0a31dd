"""Limits that hold across nodes, without a round trip to Redis in any request: 429 beyond them.

```
rates        events per second: the count of this node, and the exchange of counts with other nodes
connections  WebSockets: checked at the handshake against the core's count and the leases of other nodes
buckets      handshakes and requests per second, of this node alone
turns        concurrent work of one subject
sharing      Redis' clock, and rounds that outlive an outage
```

A node shares a subject's count once it is more than a sixteenth of its limit. Counts below that on each
of sixteen nodes can not exceed the limit in sum, and subjects far from their limits cost Redis nothing. So
the sum over N nodes stays within limit * (1 + (N - 1) / 16), plus the events of one exchange with Redis.
While Redis is unavailable, each node limits by its own count.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from redis.asyncio import Redis

from homewire._core import Core
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.limits.connections import ConnectionLimits, ConnectionSharing
from homewire.limits.rates import Rates, RateSharing
from homewire.limits.sharing import SharedClock
from homewire.settings import Settings


class Limits:
    """The limits of one node: `rates` for events, `admission` for connections."""

    def __init__(
        self,
        redis: Redis,
        core: Core,
        settings: Settings,
        refusals: Counter[str],
        clock: Clock = MACHINE_CLOCK,
    ) -> None:
        """`refusals` is where it counts how often each limit refused, by the name of its setting."""
        shared = SharedClock(redis, clock)
        self.rates = Rates(settings, shared.now, refusals)
        self.admission = ConnectionLimits(core, settings, refusals, clock)
        self._totals = RateSharing(redis, self.rates, shared)
        self._holders = ConnectionSharing(redis, self.admission, shared)

    async def run(self) -> None:
        """Exchange counts with the other nodes until cancelled, then take back what was said here."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._totals.run())
                group.create_task(self._holders.run())
        finally:
            await self._holders.release()
