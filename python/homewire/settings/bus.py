"""Settings of Redis and the bus: the embedded server, shards, retention, appends."""

# ruff: noqa: RUF009  (a field made by `setting` is as immutable as one made by `dataclasses.field`)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homewire.settings.fields import MIB, Durability, setting


@dataclass(frozen=True, kw_only=True)
class BusSection:
    """Where Redis is, and how events are stored in it."""

    data_dir: Path = setting(
        Path("data"),
        "Directory of the embedded server, the demo's keys, and node.json with the node's address.",
        flag="--data-dir",
    )
    redis_url: str | None = setting(
        None,
        "URL of Redis, e.g. redis://host:6379, unix:///path, redis+sentinel://host,host/master or "
        "redis+cluster://host,host. Unset: the embedded server.",
        flag="--redis",
        secret=True,
    )
    redis_binary: Path | None = setting(
        None,
        "Program of the embedded server. Unset: the bundled one, else valkey-server or redis-server in PATH.",
    )
    embedded_cluster: bool = setting(
        False,
        "Embedded server in cluster mode, with all slots on it. For homewire's own tests, in which a command "
        "across slots must fail.",
    )
    redis_memory_bytes: int = setting(
        0,
        "Maximum memory of the embedded server (maxmemory). At the limit writes are answered 503, and "
        "deletions free memory. 0: half of the memory of the machine, or of the container.",
        unit="bytes",
        minimum=0,
    )
    durability: Durability = setting(
        "always",
        "fsync of the embedded server. always: no acknowledged write is lost; everysec: a power failure may "
        "lose the last second.",
        flag="--durability",
    )
    ack: str = setting(
        "none",
        "Replicas of Redis that must have an event or a change before it is answered. replicas: one; "
        "replicas:2: two. Without them within 1 s the answer is 503, not confirmed. none: the master alone "
        "confirms.",
        flag="--ack",
    )
    shards: int = setting(
        64,
        "Number of shards. It must be the same on all nodes and can not be changed later.",
        minimum=1,
        maximum=16384,
    )
    retention_age_s: float = setting(
        600.0, "Maximum age of events in the shards, for clients that reconnect.", unit="s", minimum=1
    )
    retention_bytes: int = setting(
        256 * MIB, "Maximum size of all shards together.", unit="bytes", minimum=1 * MIB
    )
    append_deadline_s: float = setting(
        4.0, "Maximum time of an append to Redis; after it 503.", unit="s", minimum=0.1
    )
    append_in_flight_bytes: int = setting(
        16 * MIB,
        "Maximum size of events written to Redis and not confirmed; beyond it 503.",
        unit="bytes",
        minimum=1 * MIB,
    )
    inbox_bytes: int = setting(
        16 * MIB,
        "Maximum size of the inbox between stream reader and reactor; beyond it the stream reader waits.",
        unit="bytes",
        minimum=MIB,
    )
    idempotency_ttl_s: float = setting(
        600.0, "How long an Idempotency-Key is stored.", unit="s", minimum=1, maximum=86400
    )
    idempotency_keys: int = setting(
        50_000,
        "Maximum Idempotency-Keys of one device, user or project key within idempotency_ttl_s; each event "
        "of a bulk counts as one. Beyond it 429. 0: no limit.",
        unit="keys",
        minimum=0,
    )
    project_idempotency_keys: int = setting(
        500_000,
        "Maximum Idempotency-Keys of one project within idempotency_ttl_s; beyond it 429. 0: no limit.",
        unit="keys",
        minimum=0,
    )
