"""Parts of lists: the same elements and numbers, whether they come in one page or in many."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homewire.store.parts import RECORDS_READ, Part


class Read:
    """Finds records by their ids, without those that are gone; notes how many were asked for together."""

    def __init__(self, gone: frozenset[int] = frozenset()) -> None:
        self.gone = gone
        self.asked: list[int] = []

    async def __call__(self, ids: Sequence[int]) -> list[str]:
        self.asked.append(len(ids))
        return [str(each) for each in ids if each not in self.gone]


async def pages_of(elements: Sequence[int], size: int) -> AsyncGenerator[list[int]]:
    for start in range(0, len(elements), size):
        yield list(elements[start : start + size])


@given(
    st.integers(0, 30),
    st.integers(0, 40),
    st.none() | st.integers(0, 40),
    st.integers(1, 10),
    st.integers(0, 5),
)
async def test_pages_are_the_part_that_was_asked_for(
    total: int, start: int, limit: int | None, size: int, more: int
) -> None:
    """However large the pages are, and however many elements came meanwhile."""
    everything = list(range(total))
    wanted = everything[start : None if limit is None else start + limit]
    pages = pages_of([*everything[start:], *range(total, total + more)], size)
    part = await Part.of(pages, start, limit, total)
    assert (part.start, part.count, part.total) == (start, len(wanted), total)
    assert part.first == wanted[:size]
    assert (part.rest is None) is (len(wanted) <= size)
    assert await part.map(str).whole() == list(map(str, wanted))


@pytest.mark.parametrize("count", [0, 1, RECORDS_READ, RECORDS_READ + 1, 3 * RECORDS_READ])
async def test_records_are_read_a_page_at_a_time(count: int) -> None:
    read = Read()
    part = await Part.by_ids(range(count), 7, 10_000, read)
    assert read.asked == [min(count, RECORDS_READ)], "the others as they are wanted"
    assert (part.start, part.count, part.total) == (7, count, 10_000)
    assert (part.rest is None) is (count <= RECORDS_READ)
    assert await part.whole() == list(map(str, range(count)))
    assert sum(read.asked) == count
    assert max(read.asked) <= RECORDS_READ


async def test_records_that_are_gone_are_not_counted_where_it_is_known() -> None:
    part = await Part.by_ids(range(10), 0, 10, Read(frozenset({3, 4})))
    assert (part.count, part.total, len(part.first)) == (8, 10, 8)


@given(st.integers(0, 10), st.integers(0, 12), st.none() | st.integers(0, 12))
def test_part_within_a_whole_list(total: int, start: int, limit: int | None) -> None:
    everything = list(range(total))
    part = Part.within(everything, start, limit)
    assert part.first == everything[start : None if limit is None else start + limit]
    assert (part.count, part.total, part.rest) == (len(part.first), total, None)
