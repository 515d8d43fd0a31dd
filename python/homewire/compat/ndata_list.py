"""Sorted lists of sessions of any size: a few rows in memory, or all rows by sorted runs in a temporary file.

The sort key of a row is one text of bytes, the values of its sort members one after the other. So rows are
compared as bytes, also in the runs on disk. Only a part of the answer is in memory at any time.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import struct
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from operator import itemgetter
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from msgspec import json

from homewire.compat.ndata_query import DEVICE_NAME, USER_NAME, Direction, Query, QueryResult, Row, shown
from homewire.compat.user_agents import device_of, load_patterns
from homewire.errors import Unavailable
from homewire.rest.context import RestContext
from homewire.sessions.models import Session
from homewire.users.models import User

RUN_BYTES: Final = 512 * 1024
"""Bytes that are sorted in memory, in 1 to 2 ms, and then written as a run."""
OVERHEAD: Final = 150
"""Bytes that an entry takes in memory beside its own."""
READ_BYTES: Final = 16 * 1024
"""Bytes of each run in memory while the runs are merged."""
BATCH: Final = 200
"""Entries of one batch, which are merged in 1 ms."""

_HEAD: Final = struct.Struct(">II")
_INVERTED: Final = bytes(range(255, -1, -1))
_LOWEST: Final = 2**63


class SortEntry(NamedTuple):
    """An entry of the sort: its key and the JSON of its row."""

    key: bytes
    body: bytes

    @property
    def size(self) -> int:
        """Estimated memory of the entry, in bytes."""
        return len(self.key) + len(self.body) + OVERHEAD


def sort_key(row: Row, order: Iterable[Direction]) -> bytes:
    """What rows are compared by. Those that are equal by `order` keep to the start of the session, then to
    its id, so that the pages of a list fit together."""
    key = b"".join(_part(row[each.member.place], each.descending) for each in order)
    return key + _part(row.started_ms, False) + _part(row.session_id, False)


def _part(value: str | int, descending: bool) -> bytes:
    """Bytes that compare as the values do, none of them the beginning of another."""
    if isinstance(value, int):
        part = (value + _LOWEST).to_bytes(8)
    else:
        # The order of UTF-8 is that of the code points. A zero within must not look like the end.
        part = value.encode().replace(b"\0", b"\0\1") + b"\0\0"
    return part.translate(_INVERTED) if descending else part


class Sorter:
    """Takes entries in any order, and gives them back sorted. A context manager: at its end the file goes.

    It sorts on the event loop in steps of one run: a thread that sorts takes the interpreter from the loop at
    each of the loop's system calls. Only the file is written in a thread. Its runs are read on the loop, from
    the kernel's memory.
    """

    def __init__(self, run_bytes: int = RUN_BYTES) -> None:
        self._run_bytes = run_bytes
        self._entries: list[SortEntry] = []
        self._size = 0
        self._runs = Runs()

    @property
    def waiting_bytes(self) -> int:
        """Estimated memory of the entries that are not written yet, in bytes."""
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runs.close()

    async def add(self, entries: Sequence[SortEntry]) -> None:
        """Add a page of entries. Raises OSError when a run cannot be written."""
        self._entries.extend(entries)
        self._size += sum(entry.size for entry in entries)
        if self._size > self._run_bytes:
            run, self._entries, self._size = self._entries, [], 0
            run.sort()
            await self._runs.write(run)

    async def batches(self, skip: int, take: int | None) -> AsyncIterator[list[bytes]]:
        """The bodies in order, without the first `skip`, at most `take` of them. Raises OSError."""
        self._entries.sort()
        merged = heapq.merge(self._entries, *self._runs.readers())
        while skipped := sum(1 for _ in islice(merged, min(skip, BATCH))):
            skip -= skipped
            yield []
        wanted = islice(merged, take)
        while batch := [entry.body for entry in islice(wanted, BATCH)]:
            yield batch


class Runs:
    """Sorted runs of entries, one behind the other in a file that has no name."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._writing = threading.Lock()
        self._closed = False
        self._ends = [0]

    async def write(self, entries: Iterable[SortEntry]) -> None:
        """Write sorted entries as a run. Raises OSError."""
        run = b"".join(_HEAD.pack(len(key), len(body)) + key + body for key, body in entries)
        await asyncio.to_thread(self._append, run)
        self._ends.append(self._ends[-1] + len(run))

    def _append(self, run: bytes) -> None:
        with self._writing:
            if self._closed:
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
            self._file.write(run)
            self._file.flush()

    def readers(self) -> list[Iterator[SortEntry]]:
        """A reader of each run, from its beginning."""
        return [self._read(start, end) for start, end in pairwise(self._ends)]

    def close(self) -> None:
        """Close the file, after an abandoned write has ended."""
        with self._writing:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _read(self, start: int, end: int) -> Iterator[SortEntry]:
        # All of them read the one file: each at its own place, without a position that they share.
        held = b""
        while start < end or held:
            whole = 0
            while (entry := _entry(held, whole)) is not None:
                yield entry
                whole += _HEAD.size + len(entry.key) + len(entry.body)
            held = held[whole:]
            if start == end:
                return
            more = os.pread(self._descriptor, min(READ_BYTES, end - start), start)
            if not more:
                raise OSError("the runs of a sorting are cut off")
            held += more
            start += len(more)

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise RuntimeError("there are no runs")
        return self._file.fileno()


def _entry(held: bytes, place: int) -> SortEntry | None:
    """The entry at an offset of the buffer; None if the buffer has only a part of it."""
    if len(held) < place + _HEAD.size:
        return None
    key_size, body_size = _HEAD.unpack_from(held, place)
    key_at = place + _HEAD.size
    body_at = key_at + key_size
    if len(held) < body_at + body_size:
        return None
    return SortEntry(held[key_at:body_at], held[body_at : body_at + body_size])


@dataclass(frozen=True, slots=True)
class SortLimits:
    """Limits of the memory of one answer."""

    few: int = 1_000
    """Rows up to this number are sorted without a file."""
    run_bytes: int = RUN_BYTES


DEFAULT_SORT_LIMITS: Final = SortLimits()


class FoundSession(NamedTuple):
    """A session that may be part of an answer. Its row may not have the names yet."""

    row: Row
    session: Session


Slot = Callable[[], AbstractContextManager[None]]
Naming = Callable[[Sequence[FoundSession]], Awaitable[list[FoundSession]]]
"""Puts the names into rows that have none yet."""


class Names:
    """Reads the names of users and devices, which are not in the records of sessions."""

    def __init__(self, context: RestContext, project_id: int) -> None:
        self._api = context
        self._project_id = project_id

    async def __call__(self, found: Sequence[FoundSession]) -> list[FoundSession]:
        """The same with the names in their rows; those of many are looked up together."""
        users = await self._api.store.users.get_many(
            self._project_id, list({each.session.user_id for each in found if each.session.user_id})
        )
        devices = await self._api.store.devices.get_many(
            self._project_id, list({each.session.device_id for each in found if each.session.device_id})
        )
        names = {device.id: device.name for device in devices}
        return [_named(each, users, names) for each in found]


def _named(found: FoundSession, users: dict[int, User], devices: dict[int, str]) -> FoundSession:
    row, session = found
    if session.device_id:
        name = devices.get(session.device_id) or row.device_name
        return FoundSession(row._replace(user_name=str(session.device_id), device_name=name), session)
    return FoundSession(row._replace(user_name=_user_name(session, users.get(session.user_id))), session)


def _user_name(session: Session, user: User | None) -> str:
    known = user and (user.email or user.phone or user.external_key)
    return known or str(session.user_id)


def unnamed(session: Session) -> FoundSession:
    """The row of a session's record, without names."""
    row = Row(
        session.id,
        "",
        device_of(session.user_agent).name,
        session.app_id,
        session.authentication_type,
        session.started_ms,
        session.expires_ms,
        session.last_access_ms,
        session.version,
    )
    return FoundSession(row, session)


class Selection:
    """The sessions that a query selects. `total` is right once all of them were read.

    They are read and sorted in steps of one page, so that a long list can be made in many turns.
    """

    def __init__(
        self,
        pages: AsyncIterator[list[Session]],
        names: Naming,
        query: Query,
        slot: Slot,
        bounds: SortLimits = DEFAULT_SORT_LIMITS,
    ) -> None:
        """`slot` is held while rows are sorted in a file."""
        self._slot = slot
        self._bounds = bounds
        self._pages = pages
        self._names = names
        self._query = query
        self._end = None if query.take is None else query.skip + query.take
        self.total = 0

    @property
    def in_file(self) -> bool:
        """Whether the sort needs a file."""
        return bool(self._query.order) and not (self._end is not None and self._end <= self._bounds.few)

    async def result(self) -> AsyncGenerator[bytes]:
        """A QueryResult, in chunks: empty ones for steps that only read. Raises Unavailable, where a valid
        document has not ended yet."""
        if self._query.count_only:
            async for _ in self._matching():
                yield b""
            yield json.encode(QueryResult(count=self._count(), total_count=self.total))
            return
        count, before = 0, b'{"items":['
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                yield before + b",".join(batch) if batch else b""
                if batch:
                    before = b","
                count += len(batch)
        opening = b"" if count else before
        yield opening + f'],"count":{count},"totalCount":{self.total}}}'.encode()

    def _count(self) -> int:
        """The number of sessions in the answer, when all were read."""
        end = self.total if self._end is None else min(self._end, self.total)
        return max(end - self._query.skip, 0)

    def _batches(self) -> AsyncGenerator[list[bytes]]:
        """The sessions of the answer in order, as JSON; an empty batch after a step that only read."""
        if self.in_file:
            return self._all_in_order()
        return self._few_in_order() if self._query.order else self._as_they_come()

    async def _matching(self) -> AsyncIterator[list[FoundSession]]:
        """The sessions that meet all conditions, a page at a time. Names are read only for conditions on
        them, and only for sessions that meet the other conditions."""
        await load_patterns()
        look_up = self._query.needs_names(USER_NAME, DEVICE_NAME)
        conditions = self._query.conditions
        own = [each for each in conditions if each.member not in (USER_NAME, DEVICE_NAME)]
        others = [each for each in conditions if each.member in (USER_NAME, DEVICE_NAME)]
        async for page in self._pages:
            found = [each for each in map(unnamed, page) if all(it.holds(each.row) for it in own)]
            if look_up:
                named = await self._names(found)
                found = [each for each in named if all(it.holds(each.row) for it in others)]
            self.total += len(found)
            yield found

    async def _as_they_come(self) -> AsyncGenerator[list[bytes]]:
        async for found in self._matching():
            before = self.total - len(found)
            end = None if self._end is None else max(self._end - before, 0)
            part = found[max(self._query.skip - before, 0) : end]
            yield await self._written(part) if part else []

    async def _few_in_order(self) -> AsyncGenerator[list[bytes]]:
        kept: list[tuple[bytes, FoundSession]] = []
        async for found in self._matching():
            keyed = ((sort_key(each.row, self._query.order), each) for each in found)
            kept = heapq.nsmallest(self._end or 0, chain(kept, keyed), key=itemgetter(0))
            yield []
        if part := [found for _, found in kept[self._query.skip :]]:
            yield await self._written(part)

    async def _all_in_order(self) -> AsyncGenerator[list[bytes]]:
        order = self._query.order
        try:
            with self._slot(), Sorter(self._bounds.run_bytes) as sorter:
                async for found in self._matching():
                    named = await self._names(found)
                    await sorter.add([SortEntry(sort_key(row, order), shown(row)) for row, _ in named])
                    yield []
                async for batch in sorter.batches(self._query.skip, self._query.take):
                    yield batch
        except OSError as error:
            raise Unavailable(problem="there is no room to sort in") from error

    async def _written(self, found: Sequence[FoundSession]) -> list[bytes]:
        return [shown(row) for row, _ in await self._names(found)]
