"""How much memory Redis may take, and what it does at that limit.

A Redis without a limit ends at the out-of-memory killer; one that evicts loses events, keys and sessions
without a sign. With `noeviction` a write at the limit is refused: it is answered 503, while deletions, which
run as scripts with `allow-oom`, still make room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from homewire.limits import memory_bytes

if TYPE_CHECKING:
    # Who only starts the embedded server has no use for redis-py, which takes long to import.
    from redis.asyncio import Redis

NOEVICTION: Final = "noeviction"
EMBEDDED_SHARE: Final = 2
"""The embedded server may take one part in so many of the memory: the node and the kernel need the rest."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """`maxmemory` in bytes (0: none), and `maxmemory-policy`."""

    bytes: int
    policy: str

    @property
    def evicts(self) -> bool:
        """Whether it forgets something at its limit, or would, if it had one."""
        return self.policy != NOEVICTION


def embedded_bytes(wanted: int) -> int:
    """The limit of the embedded server: what is wanted, or (0) half of what this process may count on."""
    return wanted or memory_bytes() // EMBEDDED_SHARE


async def memory_limit(redis: Redis) -> MemoryLimit | None:
    """That of a Redis; None if it does not tell. Raises RedisError, OSError."""
    from redis.exceptions import ResponseError

    try:
        told = await redis.config_get("maxmemory", "maxmemory-policy")
    except ResponseError:
        return None
    options = {_text(name): _text(value) for name, value in told.items()}
    return MemoryLimit(int(options.get("maxmemory", 0)), options.get("maxmemory-policy", "?"))


async def report_eviction(redis: Redis) -> None:
    """Log an error if Redis evicts. Raises RedisError, OSError."""
    limit = await memory_limit(redis)
    if limit is not None and limit.evicts:
        _log.error(
            "redis_evicts",
            policy=limit.policy,
            maxmemory=limit.bytes,
            advice="CONFIG SET maxmemory-policy noeviction: what is evicted is lost without a sign",
        )


def _text(word: bytes | str | None) -> str:
    return word.decode() if isinstance(word, bytes) else word or ""
