"""Rows in order: keys compare as the values do, and runs in a file merge into what sorting at once gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homewire.compat.ndata_list import READ_BYTES, SortEntry, Sorter, sort_key
from homewire.compat.ndata_query import MEMBERS, Direction, Row

texts = st.text(st.sampled_from("\0\1aAbé\uffff\U0001f600:;"), max_size=4)
numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2)
rows = st.builds(Row, texts, texts, texts, texts, texts, numbers, numbers, numbers, numbers)
orders = st.lists(
    st.builds(Direction, st.sampled_from(MEMBERS), st.booleans()),
    max_size=4,
    unique_by=lambda each: each.member,
)


def sorted_plainly(some: list[Row], order: list[Direction]) -> list[Row]:
    """By the last member first: sorting is stable, also in reverse."""
    ordered = sorted(some, key=lambda row: (row.started_ms, row.session_id))
    for direction in reversed(order):
        ordered.sort(key=lambda row: row[direction.member.place], reverse=direction.descending)
    return ordered


@settings(max_examples=300)
@given(st.lists(rows, max_size=30), orders)
def test_keys_compare_as_the_values_do(some: list[Row], order: list[Direction]) -> None:
    by_key = sorted(some, key=lambda row: sort_key(row, order))
    places = [each.member.place for each in order]
    plainly = sorted_plainly(some, order)
    compared = [*places, 5, 0]
    assert [[row[place] for place in compared] for row in by_key] == [
        [row[place] for place in compared] for row in plainly
    ]


async def sorted_by_runs(
    entries: list[SortEntry], run_bytes: int, skip: int = 0, take: int | None = None, page: int = 7
) -> list[bytes]:
    with Sorter(run_bytes) as sorter:
        for start in range(0, len(entries), page):
            await sorter.add(entries[start : start + page])
        return [body async for batch in sorter.batches(skip, take) for body in batch]


def entries_of(count: int, size: int) -> list[SortEntry]:
    """In no order, each another, some longer than what is read at a time."""
    return [SortEntry(os.urandom(8), number.to_bytes(4) + bytes(number % size)) for number in range(count)]


@pytest.mark.parametrize("run_bytes", [0, 3_000, 10**9])
@pytest.mark.parametrize(
    ("skip", "take"), [(0, None), (3, 4), (0, 0), (600, None), (0, 10**9), (10**9, None)]
)
async def test_runs_merge(run_bytes: int, skip: int, take: int | None) -> None:
    entries = entries_of(1_100, 50)
    expected = [entry.body for entry in sorted(entries)][skip:]
    assert (
        await sorted_by_runs(entries, run_bytes, skip, take)
        == expected[: len(expected) if take is None else take]
    )


async def test_entry_longer_than_one_read_is_returned() -> None:
    entries = [
        SortEntry(os.urandom(4), os.urandom(size))
        for size in (READ_BYTES * 3, 0, READ_BYTES, READ_BYTES - 12)
    ]
    assert await sorted_by_runs(entries, 0, page=2) == [entry.body for entry in sorted(entries)]


async def test_nothing_is_sorted_too() -> None:
    assert await sorted_by_runs([], 100) == []


async def test_file_has_no_name_and_goes_with_the_sorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # The threads of the event loop have descriptors of their own.
    await sorted_by_runs(entries_of(10, 10), 0)
    before = len(os.listdir("/proc/self/fd"))
    with Sorter(0) as sorter:
        await sorter.add(entries_of(10, 10))
        assert len(os.listdir("/proc/self/fd")) == before + 1
        assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_waiting_entries_in_memory_are_bounded() -> None:
    with Sorter(5_000) as sorter:
        for _ in range(100):
            await sorter.add(entries_of(10, 10))
            assert sorter.waiting_bytes <= 5_000
