"""The store of a benchmark's Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from homewire.repositories import Store

SHARDS = 64


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Store, Redis]]:
    """A store with a relay, and the client that it is on; closed when nothing is left to relay."""
    # Here: peers that have no part of homewire in them import what imports this.
    from homewire.access_changes.relay import Relay
    from homewire.redis.connect import connect
    from homewire.repositories import Store

    client = connect(url)
    relay = Relay(client, SHARDS)
    try:
        yield Store(client, relay), client
    finally:
        await relay.close()
        await client.aclose()
