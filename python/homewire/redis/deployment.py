"""The identity of a deployment: an id, a schema version and the number of shards, written once to Redis.

A node that reaches an empty Redis, or that of another deployment, would answer 401 for keys that exist, and
append events where no subscriber reads them. So a node remembers the id: in its data directory, and while it
runs. Each new connection is asked for the id before it is used; an operator agrees to another one with
`homewire adopt-redis`.

In a Redis Cluster the identity is in one slot, and each master can come back empty. So there is a copy in the
slot of each shard, and each master is asked for one of those that it serves.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import structlog
from redis.exceptions import RedisError

from homewire.errors import ConfigurationError
from homewire.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

KEY: Final = "hw:{deployment}"
"""Hash: `id`, `schema`, `shards`, and `replaces`: the ids of deployments whose nodes may use this Redis. In a
Redis Cluster `copied` says that there is a copy in the slot of each shard."""
FILE: Final = "deployment.id"
EXTERNAL_FILE: Final = "deployment.external.id"
"""With an external Redis: the embedded server of the same data directory is another deployment."""
SCHEMA: Final = 1
"""Version of the keys and records in Redis."""
WATCH_S: Final = 1.0

_ESTABLISH: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'id', ARGV[1], 'schema', ARGV[2], 'shards', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'id', 'schema', 'shards', 'replaces')
"""


def question(key: str = KEY) -> tuple[str, ...]:
    """The command whose reply `Identity.require` judges."""
    return ("HMGET", key, "id", "schema", "shards", "replaces")


class WrongDeployment(ConnectionError):
    """The server belongs to another deployment, or is empty."""


_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a Redis says of itself."""

    id: str
    schema: int
    shards: int
    replaces: frozenset[str] = frozenset()

    @classmethod
    def of(cls, reply: Sequence[bytes | None]) -> Deployment | None:
        """From the reply to `question()`; None for a Redis without an identity."""
        if reply[0] is None:
            return None
        named, schema, shards, replaces = [(each or b"").decode() for each in reply]
        return cls(named, int(schema), int(shards), frozenset(replaces.split()))


async def read(redis: Redis) -> Deployment | None:
    """The identity of a Redis. Raises RedisError, OSError."""
    return Deployment.of(await redis.execute_command(*question()))  # type: ignore[no-untyped-call]


class Identity:
    """The deployment that this node belongs to. Used from the event loop alone."""

    def __init__(self, shards: int, file: Path | None = None, *, in_cluster: bool = False) -> None:
        """The id is in `file`. Without it any deployment is accepted, but not another number of shards."""
        self._file = file
        self._shards = shards
        self._known = ""
        self.copies: Final = [f"hw:{{e{shard}}}:deployment" for shard in range(shards)] if in_cluster else []
        """The keys of the copies."""
        if file is not None:
            with suppress(OSError):
                self._known = file.read_text().strip()
        self.problem: str | None = None
        """Why Redis must not be used now; None if it may be."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """That of a node with these settings."""
        file = FILE if settings.redis_url is None else EXTERNAL_FILE
        return cls(settings.shards, settings.data_dir / file, in_cluster=settings.has_redis_cluster)

    @classmethod
    def of_command(cls, settings: Settings) -> Self:
        """That of a command, which has the Redis that it was given: only a node belongs to a deployment."""
        return cls(settings.shards, in_cluster=settings.has_redis_cluster)

    def contradiction(self, found: Deployment | None) -> str | None:
        """Why a node with these settings and this memory must not use a Redis of this identity."""
        if found is None:
            if not self._known:
                return None
            return (
                f"this Redis is empty or another one; this node belongs to deployment {self._known}. {_ADOPT}"
            )
        if found.schema != SCHEMA:
            return f"its records have schema version {found.schema}, and this homewire reads {SCHEMA}"
        if found.shards != self._shards:
            return (
                f"this deployment has {found.shards} shards, and the settings say {self._shards}: "
                f"set HOMEWIRE_SHARDS={found.shards}"
            )
        if self._known and found.id != self._known and self._known not in found.replaces:
            return f"this Redis has deployment {found.id}, and this node belongs to {self._known}. {_ADOPT}"
        return None

    async def establish(self, redis: Redis) -> Deployment:
        """Read the identity of Redis; write a new one where neither Redis nor this node has one.

        Raises ConfigurationError where they contradict each other, RedisError and OSError.
        """
        found = await read(redis)
        if found is None and not self._known:
            found = Deployment.of(
                await redis.eval(_ESTABLISH, 1, KEY, secrets.token_hex(8), SCHEMA, self._shards)
            )
        if problem := self.contradiction(found):
            raise ConfigurationError(problem)
        assert found is not None
        if self.copies and not await redis.hexists(KEY, "copied"):
            await self._copy(redis, found)
        for copy in self.copies:
            held = Deployment.of(await redis.execute_command(*question(copy)))  # type: ignore[no-untyped-call]
            if held is None or held.id != found.id:
                raise ConfigurationError(
                    f"a master of the Redis Cluster lost its data, or part of it. {_ADOPT}"
                )
        self._remember(found)
        return found

    async def _copy(self, redis: Redis, found: Deployment) -> None:
        fields: dict[Any, Any] = {"id": found.id, "schema": found.schema, "shards": found.shards}
        for copy in self.copies:
            async with redis.pipeline(transaction=False) as pipeline:
                pipeline.hset(copy, mapping={**fields, "replaces": " ".join(sorted(found.replaces))})
                await pipeline.execute()
        # Last: without it the next node begins again.
        await redis.hset(KEY, "copied", "1")

    async def adopt(self, redis: Redis) -> Mapping[str, Any]:
        """Let nodes of the deployment that this node knows use this Redis. Returns both ids.

        Raises ConfigurationError, RedisError and OSError.
        """
        known, self._known = self._known, ""
        if self.copies:
            await redis.hdel(KEY, "copied")
        found = await self.establish(redis)
        if known and known != found.id:
            found = replace(found, replaces=found.replaces | {known})
            await redis.hset(KEY, "replaces", " ".join(sorted(found.replaces)))
            await self._copy(redis, found)
        return {"deploymentId": found.id, "replaced": known}

    def require(self, reply: Any) -> None:
        """Judge a connection by its reply to `question`. Raises WrongDeployment if it must not be used."""
        if problem := self.admit(reply):
            raise WrongDeployment(problem)

    def admit(self, reply: Any) -> str | None:
        """The same: why the connection must not be used, or None.

        An error in place of a reply tells nothing, and the next command on the connection will fail with it.
        """
        problem = self._judge(reply)
        # What one master of a cluster says does not make another one right: `watch` asks all of them.
        if problem or not self.copies:
            self._note(problem)
        return problem

    def _judge(self, reply: Any) -> str | None:
        if isinstance(reply, Exception):
            return None
        found = Deployment.of(reply)
        problem = self.contradiction(found)
        if found is not None and problem is None and found.id != self._known:
            self._remember(found)
        return problem

    def _note(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            _log.error("deployment.refused", problem=problem)
        elif self.problem and not problem:
            _log.info("deployment.accepted")
        self.problem = problem

    async def watch(
        self, redis: Redis, keys: Callable[[], Sequence[str]], disconnect: Callable[[], None]
    ) -> None:
        """Notice within seconds that a server was emptied under its connections, and close all of them with
        `disconnect`. Runs until cancelled.

        `keys` are keys of the identity, one on each server.
        """
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                replies = [await redis.execute_command(*question(key)) for key in keys()]  # type: ignore[no-untyped-call]
            except (RedisError, OSError):
                # An outage, or the wrong deployment again, which `require` has judged at the new connection.
                continue
            if not replies:  # No server is known now.
                continue
            problem = next(filter(None, map(self._judge, replies)), None)
            self._note(problem)
            if problem:
                disconnect()

    def _remember(self, found: Deployment) -> None:
        self._known = found.id
        # A node with an external Redis needs no data directory, and makes none for this.
        if self._file is not None:
            with suppress(OSError):
                self._file.write_text(found.id + "\n")


_ADOPT: Final = "If it is right, run `homewire adopt-redis`"
