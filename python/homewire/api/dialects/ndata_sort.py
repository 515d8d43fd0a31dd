"""Rows in order, however many: the first few of them in memory, or all of them by runs in a temporary file.

A row is sorted by one text of bytes, in which the values of all members it is sorted by stand one behind the
other: comparing two rows is comparing bytes, and a run on disk needs nothing else.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import struct
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self

from homewire.api.dialects.ndata_query import Direction
from homewire.api.dialects.ndata_rows import Row

RUN_BYTES: Final = 2 * 1024 * 1024
"""How much is sorted in memory before it is written down as a run."""
OVERHEAD: Final = 150
"""Bytes that an entry takes in memory beside its own."""
READ_BYTES: Final = 32 * 1024
"""How much of each run is in memory while they are merged."""
BATCH: Final = 500
"""Entries that are handed on together."""

_HEAD: Final = struct.Struct(">II")
_INVERTED: Final = bytes(range(255, -1, -1))
_LOWEST: Final = 2**63


class Entry(NamedTuple):
    """Something to be sorted: by `key` first."""

    key: bytes
    body: bytes

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
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

    Whatever takes long, sorting and the file, is done beside the event loop.
    """

    def __init__(self, run_bytes: int = RUN_BYTES) -> None:
        self._run_bytes = run_bytes
        self._entries: list[Entry] = []
        self._size = 0
        self._runs = Runs()

    @property
    def waiting_bytes(self) -> int:
        """About how much memory those take that were not written down."""
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runs.close()

    async def add(self, entries: Sequence[Entry]) -> None:
        """More of them, a page at a time. Raises OSError when they can't be written down."""
        self._entries.extend(entries)
        self._size += sum(entry.size for entry in entries)
        if self._size > self._run_bytes:
            run, self._entries, self._size = self._entries, [], 0
            await asyncio.to_thread(self._runs.write, run)

    async def batches(self, skip: int, take: int | None) -> AsyncIterator[list[bytes]]:
        """The bodies in order, without the first `skip`, at most `take` of them. Raises OSError."""
        await asyncio.to_thread(self._entries.sort)
        merged = heapq.merge(self._entries, *self._runs.readers())
        wanted = islice(merged, skip, None if take is None else skip + take)
        while batch := await asyncio.to_thread(lambda: [entry.body for entry in islice(wanted, BATCH)]):
            yield batch


class Runs:
    """Sorted runs of entries, one behind the other in a file that has no name."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._ends = [0]

    def write(self, entries: list[Entry]) -> None:
        """Sort these, and write them down. Raises OSError."""
        entries.sort()
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        for key, body in entries:
            self._file.write(_HEAD.pack(len(key), len(body)) + key + body)
        self._file.flush()
        self._ends.append(self._file.tell())

    def readers(self) -> list[Iterator[Entry]]:
        """One for each run, from its beginning."""
        return [self._read(start, end) for start, end in pairwise(self._ends)]

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _read(self, start: int, end: int) -> Iterator[Entry]:
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


def _entry(held: bytes, place: int) -> Entry | None:
    """The entry at a place of what was read, if all of it was."""
    if len(held) < place + _HEAD.size:
        return None
    key_size, body_size = _HEAD.unpack_from(held, place)
    key_at = place + _HEAD.size
    body_at = key_at + key_size
    if len(held) < body_at + body_size:
        return None
    return Entry(held[key_at:body_at], held[body_at : body_at + body_size])
