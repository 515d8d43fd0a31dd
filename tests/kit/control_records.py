"""The control records in the shards, decoded."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgpack
from redis.asyncio import Redis

from homewire._core import shard_of
from homewire.access_changes.records import RecordType
from homewire.access_changes.relay import Answered, Relay
from homewire.bus.shards import events_key
from homewire.repositories import Store
from homewire.store.keys import ProjectSlot

SHARDS = 64
Announced = tuple[str, dict[str, Any], set[int]]
"""Type, subjects that are not 0, and the shards with a copy."""


@dataclass(frozen=True)
class Copy:
    """One control record in one shard."""

    shard: int
    project: int
    type: int
    user: int
    home: int
    device: int
    key_tag: int
    outbox: tuple[int, int]
    body: bytes

    @property
    def subjects(self) -> dict[str, Any]:
        named = {"user": self.user, "home": self.home, "device": self.device, "key_tag": self.key_tag}
        return {name: value for name, value in {**named, "body": self.body}.items() if value}


class Forgetful:
    """In place of a relay: what a process does that dies between record and announcement."""

    def __init__(self, relay: Relay | None = None) -> None:
        self._relay = relay

    def is_expected(self, project_id: int) -> bool:
        return False

    async def expect(self, project_id: int) -> None:
        if self._relay is not None:
            await self._relay.expect(project_id)

    async def announce(self, project_id: int, deadline: float, entries: Answered) -> None:
        """Nothing: it is dead."""


def dying_store(redis: Redis) -> Store:
    """A store whose process always dies before the announcement."""
    return Store(redis, Forgetful(Relay(redis, SHARDS)))


def decoded(shard: int, envelope: bytes) -> Copy | None:
    """The control record that an envelope is; None for events, commands and what is no envelope.

    The shards are those of all tests on this Redis, and some put there what a node would skip.
    """
    if envelope[0] != 1:
        return None
    unpacker = msgpack.Unpacker(io.BytesIO(envelope[1:]))
    kind, *header = unpacker.unpack()
    if kind != 3:
        return None
    project, type_, user, home, device, tag, milliseconds, sequence = header
    body = envelope[1 + unpacker.tell() :]
    return Copy(shard, project, type_, user, home, device, tag, (milliseconds, sequence), body)


async def copies(redis: Redis, project: int) -> list[Copy]:
    """All copies of the project's records, shard by shard, each in its order."""
    async with redis.pipeline(transaction=False) as pipeline:
        for shard in range(SHARDS):
            pipeline.xrange(events_key(shard))
        streams = await pipeline.execute()
    found = [decoded(shard, fields[b"e"]) for shard, stream in enumerate(streams) for _, fields in stream]
    return [copy for copy in found if copy is not None and copy.project == project]


async def announced_by(redis: Redis, project: int, change: Awaitable[object]) -> list[Announced]:
    """What was announced by a change, in the order of the outbox, which must be empty soon after."""
    before = {copy.outbox for copy in await copies(redis, project)}
    await change

    async def is_empty() -> bool:
        return await redis.xlen(ProjectSlot(project).outbox) == 0

    received = await _announced_since(redis, project, before)
    # What was copied is deleted behind the answer.
    await until(is_empty)
    return received


async def _announced_since(redis: Redis, project: int, before: set[tuple[int, int]]) -> list[Announced]:
    """The entries of the shards without these records."""
    records: dict[tuple[int, int], list[Copy]] = {}
    for copy in await copies(redis, project):
        if copy.outbox not in before:
            records.setdefault(copy.outbox, []).append(copy)
    received = []
    for outbox in sorted(records):
        some = records[outbox]
        assert len({copy.shard for copy in some}) == len(some), "a copy stands there twice"
        assert all((copy.type, copy.subjects) == (some[0].type, some[0].subjects) for copy in some)
        received.append((RecordType(some[0].type).name, some[0].subjects, {copy.shard for copy in some}))
    return received


def shards_of(*ids: int) -> set[int]:
    return {shard_of(each, SHARDS) for each in ids}


def first_appearances(found: list[Copy]) -> dict[int, list[tuple[int, int]]]:
    """For each shard the records in the order in which they were first seen."""
    seen: dict[int, list[tuple[int, int]]] = {}
    for copy in found:
        order = seen.setdefault(copy.shard, [])
        if copy.outbox not in order:
            order.append(copy.outbox)
    return seen


async def until(condition: Callable[[], Awaitable[bool]], within: float = 20.0) -> None:
    """Wait for a change of Redis by another task or process, which is not announced."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
