"""`check`: can this machine, with this configuration, run homewire?"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from homewire import settings as settings_table
from homewire.cli.options import Json, serving_command
from homewire.errors import ConfigurationError
from homewire.hosts import is_loopback
from homewire.machine import open_file_limit
from homewire.settings import Settings
from homewire.settings.fields import MIB

if TYPE_CHECKING:
    from redis.asyncio import Redis as RedisClient

    from homewire.redis.connect import MemoryLimit

FEW_FILES = 1_024
ENOUGH_FILES = 65_536

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


def register(app: typer.Typer) -> None:
    """Add `check` to the command tree."""
    serving_command(app, "check")(check)


def check(settings: Settings, as_json: Json = False) -> None:
    """Check whether this machine and configuration can run homewire, and say how to repair what fails."""
    findings = asyncio.run(examine(settings))
    fit = all(finding.level is not Level.FATAL for finding in findings)
    if as_json:
        import orjson

        print(orjson.dumps({"ok": fit, "checks": [f.as_json() for f in findings]}).decode())
    else:
        for finding in findings:
            print(f"{finding.level.value:<8}{finding.check}: {finding.seen}")
            if finding.advice:
                print(f"{'':<8}→ {finding.advice}")
    if not fit:
        sys.exit(1)


async def examine(settings: Settings) -> list[Finding]:
    """Every finding about `settings` on this machine."""
    findings = [
        _python(),
        _open_files(),
        _port(settings),
        *_tls(settings),
        *_proxies(settings),
        *_data_directory(settings),
        *_secret(settings),
    ]
    contradictions = settings_table.contradictions(settings)
    findings += [Finding("settings", Level.WARNING, seen, advice) for seen, advice in contradictions]
    return findings + [finding async for finding in _redis(settings)]


def _python() -> Finding:
    return Finding("python", Level.OK, f"{platform.python_implementation()} {platform.python_version()}")


def _open_files() -> Finding:
    soft, hard = open_file_limit()
    seen = f"{hard} (soft limit {soft}, raised at start)"
    advice = f"raise the hard limit to {ENOUGH_FILES} or more (ulimit -Hn, LimitNOFILE=, container ulimits)"
    if hard < FEW_FILES:
        return Finding("open files", Level.FATAL, seen, advice)
    if hard < ENOUGH_FILES:
        return Finding("open files", Level.WARNING, seen, f"{advice}: each client takes one")
    return Finding("open files", Level.OK, seen)


def _port(settings: Settings) -> Finding:
    from homewire.server.accept import bound_sockets

    address = f"{settings.host}:{settings.port}"
    try:
        addresses = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for probe in bound_sockets(addresses, settings.port):
            probe.close()
    except OSError as error:
        advice = "choose another --port or --host"
        if error.errno == errno.EADDRINUSE:
            if _serves(settings):
                seen = f"{address}: in use by the homewire that runs on this data directory"
                return Finding("port", Level.OK, seen)
            advice = "end the program that uses it (perhaps a homewire), or choose another --port"
        return Finding("port", Level.FATAL, f"{address}: {error.strerror or error}", advice)
    return Finding("port", Level.OK, f"{address} is free")


def _tls(settings: Settings) -> list[Finding]:
    from homewire.tls import key_is_open, server_context

    try:
        context = server_context(settings)
    except ConfigurationError as error:
        return [Finding("tls", Level.FATAL, str(error), "name a certificate and its key, both in PEM form")]
    if key_is_open(settings):
        seen = "every user of this machine can read the private key"
        return [Finding("tls", Level.WARNING, seen, f"chmod o-r {settings.tls_key}")]
    return [] if context is None else [Finding("tls", Level.OK, "certificate and key fit together")]


def _data_directory(settings: Settings) -> list[Finding]:
    """Whose the data directory is: keys, events and secret.key lie in it."""
    try:
        found = settings.data_dir.stat()
    except OSError:
        return []
    seen = f"{settings.data_dir} belongs to user {found.st_uid}, mode {found.st_mode & 0o777:o}"
    if found.st_uid != os.geteuid():
        advice = "let it belong to the user that homewire runs as"
        return [Finding("data directory", Level.WARNING, seen, advice)]
    if found.st_mode & 0o077:
        advice = f"chmod 700 {settings.data_dir}: no other user may read its append-only file"
        return [Finding("data directory", Level.WARNING, seen, advice)]
    return [Finding("data directory", Level.OK, seen)]


def _secret(settings: Settings) -> list[Finding]:
    from homewire.sealing import HOW_TO_SHARE, NOT_SHARED, has_secret

    if has_secret(settings):
        return []
    return [Finding("secret key", Level.WARNING, NOT_SHARED, HOW_TO_SHARE)]


def _proxies(settings: Settings) -> list[Finding]:
    if settings.trusted_proxies:
        return [Finding("trusted proxies", Level.OK, settings.trusted_proxies)]
    if is_loopback(settings.host):
        return []
    seen = f"none, and the node listens on {settings.host or 'every address'}"
    advice = "behind a balancer set trusted_proxies: otherwise limits see all its clients as one address"
    return [Finding("trusted proxies", Level.WARNING, seen, advice)]


def _serves(settings: Settings) -> bool:
    """Whether the node of the data directory listens on the port."""
    import psutil

    from homewire.redis.data_dir import holder

    running = holder(settings.data_dir)
    if running is None:
        return False
    try:
        connections = psutil.Process(running).net_connections("tcp")
    except psutil.Error:
        return False
    return any(it.status == psutil.CONN_LISTEN and it.laddr.port == settings.port for it in connections)


async def _redis(settings: Settings) -> AsyncIterator[Finding]:
    from redis.exceptions import RedisError

    from homewire.cli.scope import reachable_redis
    from homewire.redis.connect import connect

    advice = "start it, or correct --redis" if settings.redis_url else "see the message"
    try:
        async with reachable_redis(settings) as url, contextlib.aclosing(connect(url)) as client:
            for finding in await _about(client, settings, url):
                yield finding
    except (RedisError, OSError) as error:
        where = settings_table.redacted(settings.redis_url or "")
        yield Finding("redis", Level.FATAL, f"{where} does not answer ({type(error).__name__})", advice)
    except ConfigurationError as error:
        yield Finding("redis", Level.FATAL, str(error), advice)


async def _about(client: RedisClient, settings: Settings, url: str) -> list[Finding]:
    info: dict[str, Any] = await client.info("everything")
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "?")
    kind = "embedded" if settings.redis_url is None else settings_table.redacted(url)
    findings = [Finding("redis", Level.OK, f"{name} {version}, {kind}"), await _features(client)]
    return findings + await _configured(client, info)


async def _features(client: RedisClient) -> Finding:
    # As one word: redis-py's own reading of COMMAND stumbles over a command that does not exist.
    answers = await client.execute_command("COMMAND INFO", *NEEDED_COMMANDS)  # type: ignore[no-untyped-call]
    missing = [name for name, known in zip(NEEDED_COMMANDS, answers, strict=True) if not known]
    if missing:
        advice = "use Redis or Valkey 7.0 or newer"
        return Finding("redis features", Level.FATAL, f"missing: {', '.join(missing)}", advice)
    return Finding("redis features", Level.OK, f"all {len(NEEDED_COMMANDS)} commands known")


async def _configured(client: RedisClient, info: dict[str, Any]) -> list[Finding]:
    from redis.exceptions import ResponseError

    try:
        configured = await client.config_get("appendfsync", "min-replicas-to-write")
    except ResponseError:
        advice = "see at its operator that it is durable, and that maxmemory-policy is noeviction"
        return [Finding("redis configuration", Level.WARNING, "this Redis does not tell", advice)]
    options = {str(name): str(value) for name, value in configured.items()}
    from homewire.redis.connect import memory_limit

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
