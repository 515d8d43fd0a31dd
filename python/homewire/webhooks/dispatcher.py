"""The dispatcher: it copies events from the shards to the streams of the smart modules that want them.

All nodes of the REST service are one consumer group on every shard. When a node dies, another node claims the
entries that it read and did not acknowledge. An event is acknowledged once it is in the stream of each module
that wants it. A crash before that repeats the event there, with the same event id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError, ResponseError

from homewire._core import event_route
from homewire.bus.shards import events_key
from homewire.concurrency import is_cancelling
from homewire.errors import Unavailable
from homewire.log import Seldom
from homewire.repositories import Store
from homewire.settings import Settings
from homewire.webhooks.models import ModuleName, SmartModule, WebhookStats
from homewire.webhooks.store import GROUP, ModuleRegistry

if TYPE_CHECKING:
    from redis.asyncio import Redis

ENTRIES: Final = 512
"""Maximum entries of one read."""
BLOCK_MS: Final = 1000
POLL_S: Final = 0.1
"""Interval of reads without entries, where one command can't read all shards (Redis Cluster)."""
AGAIN_S: Final = 0.5
PAGE: Final = 200
PAGE_BYTES: Final = 1024 * 1024
"""Maximum events, and bytes of events, that one script adds."""
EXPECTED_FOR_S: Final = 10.0
"""How long one note that a module may get deliveries is enough. Redis keeps the note for 30 s."""
READERS: Final = 16
"""With more consumers of a shard, dead ones are removed: each start of a node adds one."""
DEAD_MS: Final = 3_600_000
LOG_S: Final = 60.0

ShardEntry = tuple[int, bytes, bytes | None]
"""Shard, id and envelope."""
_log = structlog.get_logger(__name__)


class Dispatcher:
    """Reads the shards as one consumer of the group, while any module exists."""

    def __init__(
        self,
        redis: Redis,
        store: Store,
        registry: ModuleRegistry,
        wake: Callable[[ModuleName], None],
        stats: WebhookStats,
        node: str,
        settings: Settings,
    ) -> None:
        """`wake` gets each module with new deliveries; `node` is the unique name of this process."""
        self._redis = redis
        # Entries are not converted: a dict for each would cost more than all other steps.
        redis.set_response_callback("XREADGROUP", _unconverted)
        redis.set_response_callback("XAUTOCLAIM", _unconverted)
        self._store = store
        self._registry = registry
        self._wake = wake
        self._stats = stats
        self._node = node
        self._settings = settings
        self._clock = store.clock
        self._keys = [events_key(shard) for shard in range(settings.shards)]
        self._numbers = {key: shard for shard, key in enumerate(self._keys)}
        self._together = True
        """Whether one command may read several shards."""
        self._full: list[bytes] = []
        """Shards that had more entries than one read returned."""
        self._claim_at = 0.0
        self._expected_until: dict[ModuleName, float] = {}
        self._seldom = Seldom(LOG_S, store.clock)

    async def run(self) -> None:
        """Dispatch until cancelled."""
        while not is_cancelling():
            await self._registry.has_modules()
            try:
                await self._round()
            except (RedisError, OSError, Unavailable) as error:
                # Not at the beginning of the text: in a pipeline redis-py puts the command in front.
                if isinstance(error, ResponseError) and "NOGROUP " in str(error):
                    await self._begin_again()
                else:
                    await self._trouble(error)

    async def _round(self) -> None:
        now = self._clock.monotonic()
        if now >= self._claim_at:
            self._claim_at = now + self._settings.webhook_lease_s
            await self._check_group()
            await self._claim_left()
        entries = await self._read()
        if entries:
            await self._handle(entries)
        elif not self._together:
            await asyncio.sleep(POLL_S)

    async def _handle(self, entries: Sequence[ShardEntry]) -> None:
        """Dispatch and acknowledge entries. Both are repeated until they succeed."""
        while True:
            try:
                await self._dispatch(entries)
                return await self._acknowledge(entries)
            except (RedisError, OSError, Unavailable) as error:
                await self._trouble(error)
            if is_cancelling():
                raise asyncio.CancelledError

    async def _read(self) -> list[ShardEntry]:
        keys = self._full or self._keys
        try:
            streams = await self._read_together(keys) if self._together else await self._read_each(keys)
        except ResponseError as error:
            if "CROSSSLOT" not in str(error).upper() and "SAME SLOT" not in str(error).upper():
                raise
            self._together = False
            return []
        count = ENTRIES // len(keys)
        # The next read has only the shards that were full, so that busy shards do not wait for idle ones.
        self._full = [] if self._full else [key for key, found in streams if len(found) >= count]
        return [
            (self._numbers[key], entry, _envelope(fields))
            for key, found in streams
            for entry, fields in found
        ]

    async def _read_together(self, keys: Sequence[bytes]) -> list[Any]:
        command = self._command(keys, *(() if self._full else ("BLOCK", BLOCK_MS)))
        return await self._redis.execute_command(*command) or []  # type: ignore[no-untyped-call]

    async def _read_each(self, keys: Sequence[bytes]) -> list[Any]:
        answers = await self._pipeline([self._command([key], count=ENTRIES // len(keys)) for key in keys])
        return [stream for answer in answers if answer for stream in answer]

    def _command(
        self, keys: Sequence[bytes], *options: str | int, count: int | None = None
    ) -> tuple[str | bytes | int, ...]:
        return (
            *("XREADGROUP", "GROUP", GROUP, self._node, "COUNT", count or max(1, ENTRIES // len(keys))),
            *(*options, "STREAMS", *keys, *(">" for _ in keys)),
        )

    async def _dispatch(self, entries: Iterable[ShardEntry]) -> None:
        # After the read, so that the registry has each module that was created before these events.
        await self._registry.refresh()
        wanted: dict[ModuleName, tuple[SmartModule, list[tuple[str, bytes]]]] = {}
        for shard, entry, envelope in entries:
            route = event_route(envelope) if envelope is not None else None
            if route is None or envelope is None:
                continue
            accepted_ms = int(entry.partition(b"-")[0])
            for module in self._registry.wanting(*route, accepted_ms):
                event_id = f"{shard}.{entry.decode('ascii')}"
                wanted.setdefault(module.name, (module, []))[1].append((event_id, envelope))
        if wanted:
            await self._expect(wanted)
        for name, (module, events) in wanted.items():
            for page in _pages(events):
                await self._add(module, page)
            self._wake(name)

    async def _add(self, module: SmartModule, events: Sequence[tuple[str, bytes]]) -> None:
        settings = self._settings
        refused = await self._store.module_deliveries.add(
            module, events, settings.webhook_waiting_bytes, settings.webhook_dead_letters
        )
        if refused is not None:
            self._stats.dispatched += len(events)
            self._stats.dead_letters += refused

    async def _expect(self, wanted: Iterable[ModuleName]) -> None:
        now = self._clock.monotonic()
        new = [name for name in wanted if now >= self._expected_until.get(name, now)]
        if new:
            await self._store.module_deliveries.expect(new)
            self._expected_until = {name: at for name, at in self._expected_until.items() if at > now}
            self._expected_until.update((name, now + EXPECTED_FOR_S) for name in new)

    async def _acknowledge(self, entries: Iterable[ShardEntry]) -> None:
        by_shard: dict[int, list[bytes]] = {}
        for shard, entry, _ in entries:
            by_shard.setdefault(shard, []).append(entry)
        await self._pipeline([("XACK", self._keys[shard], GROUP, *ids) for shard, ids in by_shard.items()])

    async def _check_group(self) -> None:
        """Count entries that were trimmed before any node read them, and remove dead consumers."""
        streams = await self._pipeline([("XINFO", "STREAM", key) for key in self._keys])
        groups = await self._pipeline([("XINFO", "GROUPS", key) for key in self._keys])
        for shard, (stream, found) in enumerate(zip(map(_pairs, streams), groups, strict=True)):
            trimmed = stream[b"entries-added"] - stream[b"length"]
            for group in map(_pairs, found):
                if group[b"name"] != GROUP.encode():
                    continue
                # None: the group has read nothing, so nothing can be said.
                if group[b"entries-read"] is not None:
                    self._stats.missed += max(0, trimmed - group[b"entries-read"])
                if group[b"consumers"] > READERS:
                    await self._store.smart_modules.forget_readers(shard, DEAD_MS)

    async def _claim_left(self) -> None:
        """Claim the entries that a node read longer than a lease ago and did not acknowledge."""
        lease_ms = round(self._settings.webhook_lease_s * 1000)
        left = dict.fromkeys(self._keys, b"0-0")
        while left:
            answers = await self._pipeline(
                [
                    ("XAUTOCLAIM", key, GROUP, self._node, lease_ms, start, "COUNT", 16)
                    for key, start in left.items()
                ]
            )
            entries = list[ShardEntry]()
            for key, (_, found, trimmed) in zip(left, answers, strict=True):
                self._stats.missed += len(trimmed)
                entries += [(self._numbers[key], entry, _envelope(fields)) for entry, fields in found]
            if entries:
                await self._handle(entries)
            # Continued at the cursor: other nodes may have many entries that they read just now.
            left = {key: answer[0] for key, answer in zip(left, answers, strict=True) if answer[0] != b"0-0"}

    async def _pipeline(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute())

    async def _begin_again(self) -> None:
        """Create the missing groups. A shard that lost its group is read from its first entry."""
        try:
            for shard in range(self._settings.shards):
                await self._store.smart_modules.begin_reading(shard, "0")
        except (RedisError, OSError, Unavailable) as error:
            await self._trouble(error)

    async def _trouble(self, error: Exception) -> None:
        if self._seldom.may("webhooks.dispatching_failed"):
            _log.warning("webhooks.dispatching_failed", error=str(error) or type(error).__name__)
        if is_cancelling():
            raise asyncio.CancelledError
        await asyncio.sleep(AGAIN_S)


def _pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _unconverted(response: Any, **_options: Any) -> Any:
    return response


def _envelope(fields: Sequence[bytes] | None) -> bytes | None:
    """The value of the field `e`, or None for entries that are no envelope or were deleted."""
    if fields is None:
        return None
    return next((value for name, value in zip(fields[::2], fields[1::2], strict=True) if name == b"e"), None)


def _pages(events: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    page, size = list[tuple[str, bytes]](), 0
    for event in events:
        if page and (len(page) == PAGE or size + len(event[1]) > PAGE_BYTES):
            yield page
            page, size = [], 0
        page.append(event)
        size += len(event[1])
    yield page
