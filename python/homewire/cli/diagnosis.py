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
from typing import TYPE_CHECKING, Any

import typer

from homewire import settings as settings_table
from homewire.cli.options import Json, serving_command
from homewire.cli.output import show
from homewire.errors import ConfigurationError
from homewire.hosts import is_loopback
from homewire.machine import open_file_limit
from homewire.redis.checks import Finding, Level
from homewire.settings import Settings, redacted

if TYPE_CHECKING:
    from redis.asyncio import Redis as RedisClient


FEW_FILES = 1_024
ENOUGH_FILES = 65_536


def register(app: typer.Typer) -> None:
    """Add `check` and `adopt-redis` to the command tree."""
    serving_command(app, "check")(check)
    serving_command(app, "adopt-redis")(adopt_redis)


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
    from homewire.redis.checks import examine_redis
    from homewire.redis.connect import connect

    advice = "start it, or correct --redis" if settings.redis_url else "see the message"
    try:
        async with reachable_redis(settings) as url, contextlib.aclosing(connect(url)) as client:
            findings = await examine_redis(client, redacted(url) if settings.redis_url else "embedded")
            for finding in [*findings, await _deployment(client, settings)]:
                yield finding
    except (RedisError, OSError) as error:
        where = redacted(settings.redis_url or "")
        yield Finding("redis", Level.FATAL, f"{where} does not answer ({type(error).__name__})", advice)
    except ConfigurationError as error:
        yield Finding("redis", Level.FATAL, str(error), advice)


async def _deployment(client: RedisClient, settings: Settings) -> Finding:
    from homewire.redis.deployment import Identity, read

    found = await read(client)
    if problem := Identity.of(settings).contradiction(found):
        return Finding("deployment", Level.FATAL, problem, "see docs/operations/redis.md")
    if found is None:
        return Finding("deployment", Level.OK, "none yet: this Redis is empty")
    return Finding("deployment", Level.OK, f"{found.id}, {found.shards} shards, schema {found.schema}")


def adopt_redis(settings: Settings, as_json: Json = False) -> None:
    """Let the nodes of this data directory's deployment use a Redis that is empty, or another deployment's.

    Running nodes go on within seconds. What the Redis does not have is lost: keys, homes, devices, events.
    """
    show(asyncio.run(_adopt(settings)), as_json)


async def _adopt(settings: Settings) -> dict[str, Any]:
    from redis.exceptions import RedisError

    from homewire.cli.scope import reachable_redis
    from homewire.redis.connect import connect
    from homewire.redis.deployment import Identity

    try:
        async with reachable_redis(settings) as url, contextlib.aclosing(connect(url)) as client:
            return dict(await Identity.of(settings).adopt(client))
    except (RedisError, OSError) as error:
        where = redacted(settings.redis_url or "")
        raise ConfigurationError(f"Redis at {where} does not answer ({type(error).__name__})") from error
