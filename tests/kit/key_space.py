"""The names of the keys that there are in a Redis, and of what kind each is."""

from __future__ import annotations

import re
from typing import Final

from redis.asyncio import Redis

_PART: Final = re.compile(r"^(\d+|[0-9a-f]{24,}|[A-Za-z0-9_-]{40,})$")


def kind(name: str) -> str:
    """The name of a key in a project, with a `#` for each id and hash in it."""
    parts = name.split(":")[2:]
    if parts[0] in ("request", "attempts", "rate", "held"):
        return f"{parts[0]}:#"
    return ":".join("#" if _PART.match(part) else part for part in parts)


async def names_of(redis: Redis, pattern: str) -> set[str]:
    return {name.decode() async for name in redis.scan_iter(pattern, count=1000)}


async def lasting(redis: Redis, pattern: str = "*") -> set[str]:
    """The names of the keys that have no TTL."""
    found = set()
    for name in await names_of(redis, pattern):
        if await redis.pttl(name) == -1:
            found.add(name)
    return found
