"""What a Redis must have and be for homewire: `homewire check` prints it, and a node does not start without.

A Redis without a memory limit ends at the out-of-memory killer; one that evicts loses events, keys and
sessions without a sign. With `noeviction` a write at the limit is refused: it is answered 503, while
deletions, which run as scripts with `allow-oom`, still make room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from homewire.errors import ConfigurationError
from homewire.machine import memory_bytes
from homewire.settings.fields import MIB

if TYPE_CHECKING:
    from redis.asyncio import Redis

# By what it can do, not by its version: Valkey 9 reports 7.2.4. EXPIRETIME came with 7.0, as did
# entries-added of XINFO STREAM, which tells that entries were trimmed before they were read.
NEEDED_COMMANDS = (
    *("XADD", "XREAD", "XRANGE", "XTRIM", "XINFO", "EVAL", "EVALSHA", "SCRIPT", "WAIT", "EXPIRETIME"),
    *("HSET", "HGETALL", "HMGET", "SADD", "SSCAN", "SMISMEMBER", "ZADD", "ZRANGE", "SET", "INCR", "UNLINK"),
)


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FATAL = "fatal"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do about it (empty: nothing)."""

    check: str
    level: Level
    seen: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """As JSON types."""
        return {"check": self.check, "level": self.level.value, "seen": self.seen, "advice": self.advice}


async def require_fit(client: Redis) -> None:
    """Raises ConfigurationError for the first finding that is fatal, RedisError and OSError."""
    for finding in await examine_redis(client, "external"):
        if finding.level is Level.FATAL:
            raise ConfigurationError(f"{finding.check}: {finding.seen}. {finding.advice}")


async def examine_redis(client: Redis, kind: str) -> list[Finding]:
    """Every finding about a Redis; `kind` says which one it is. Raises RedisError, OSError.

    Of a Redis Cluster each master is examined, and what is found at several is told once, with the first.
    """
    # Imported at use: it takes long.
    from homewire.redis.connect import each_server

    found: dict[tuple[str, Level, str], Finding] = {}
    async for where, each in each_server(client):
        for finding in await _examine_server(each, kind):
            seen = f"{finding.seen} ({where})" if where else finding.seen
            kept = replace(finding, seen=seen)
            found.setdefault((finding.check, finding.level, finding.advice), kept)
    return list(found.values())


async def _examine_server(client: Redis, kind: str) -> list[Finding]:
    info: dict[str, Any] = await client.info("everything")
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "?")
    findings = [Finding("redis", Level.OK, f"{name} {version}, {kind}"), await _features(client)]
    return findings + await _configured(client, info)


async def _features(client: Redis) -> Finding:
    # As one word: redis-py's own reading of COMMAND stumbles over a command that does not exist.
    answers = await client.execute_command("COMMAND INFO", *NEEDED_COMMANDS)  # type: ignore[no-untyped-call]
    missing = [name for name, known in zip(NEEDED_COMMANDS, answers, strict=True) if not known]
    if missing:
        advice = "use Redis or Valkey 7.0 or newer"
        return Finding("redis features", Level.FATAL, f"missing: {', '.join(missing)}", advice)
    return Finding("redis features", Level.OK, f"all {len(NEEDED_COMMANDS)} commands known")


async def _configured(client: Redis, info: dict[str, Any]) -> list[Finding]:
    from redis.exceptions import ResponseError

    try:
        configured = await client.config_get("appendfsync", "min-replicas-to-write")
    except ResponseError:
        advice = "see at its operator that it is durable, and that maxmemory-policy is noeviction"
        return [Finding("redis configuration", Level.WARNING, "this Redis does not tell", advice)]
    options = {str(name): str(value) for name, value in configured.items()}
    memory = await memory_limit(client)
    about_memory = [] if memory is None else [_eviction(memory), _memory(memory, info)]
    return [_durability(options, info), *about_memory, _replicas(options, info)]


def _durability(options: dict[str, str], info: dict[str, Any]) -> Finding:
    if not info.get("aof_enabled"):
        advice = "CONFIG SET appendonly yes, appendfsync always (or everysec)"
        return Finding("appendfsync", Level.WARNING, "no append-only file: a restart loses events", advice)
    chosen = options.get("appendfsync", "?")
    if chosen == "always":
        return Finding("appendfsync", Level.OK, chosen)
    advice = "always, if nothing acknowledged may be lost in a power failure"
    return Finding("appendfsync", Level.WARNING, chosen, advice)


def _eviction(memory: MemoryLimit) -> Finding:
    if not memory.evicts:
        return Finding("maxmemory-policy", Level.OK, memory.policy)
    advice = "CONFIG SET maxmemory-policy noeviction: an evicted stream is silent loss"
    return Finding("maxmemory-policy", Level.FATAL, memory.policy, advice)


def _memory(memory: MemoryLimit, info: dict[str, Any]) -> Finding:
    used = f"{int(info.get('used_memory', 0)) // MIB} MiB used"
    if memory.bytes:
        return Finding("maxmemory", Level.OK, f"{memory.bytes // MIB} MiB, {used}")
    advice = "set its limit with CONFIG SET maxmemory; without one, the out-of-memory killer may end it"
    return Finding("maxmemory", Level.WARNING, f"none, {used}", advice)


def _replicas(options: dict[str, str], info: dict[str, Any]) -> Finding:
    if info.get("role") not in ("master", None):
        return Finding("replicas", Level.FATAL, "this is a replica", "name its primary with --redis")
    connected = int(info.get("connected_slaves", 0))
    needed = int(options.get("min-replicas-to-write", 0))
    seen = f"{connected} connected, {needed} needed for a write"
    if connected and not needed:
        advice = "CONFIG SET min-replicas-to-write 1, or a failover may lose the last moments"
        return Finding("replicas", Level.WARNING, seen, advice)
    if connected < needed:
        return Finding(
            "replicas", Level.FATAL, seen, "bring the replicas back: writes are refused until then"
        )
    return Finding("replicas", Level.OK, seen)


NOEVICTION: Final = "noeviction"
EMBEDDED_SHARE: Final = 2
"""The embedded server may take one part in so many of the memory: the node and the kernel need the rest."""


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


def _text(word: bytes | str | None) -> str:
    return word.decode() if isinstance(word, bytes) else word or ""
