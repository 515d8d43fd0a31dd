"""A part of a list: its first elements, and those behind them as they are wanted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

RECORDS_READ: Final = 100
"""Of a list, together: they take a ms or two of the event loop, and some 100 KB."""

T = TypeVar("T")
Id = TypeVar("Id")
Shown = TypeVar("Shown")
Read = Callable[[Sequence[Id]], Awaitable[list[T]]]


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """What of a list is asked for: `count` of its `total` elements, without the first `start`.

    `first` are the first of them, `rest` all others, a page at a time; None: there are none. What is changed
    while they are read is there or not; nothing else is missing or there twice, and there are no more than
    `count`.
    """

    first: list[T]
    start: int
    count: int
    total: int
    rest: AsyncGenerator[list[T]] | None = None

    @classmethod
    async def of(cls, pages: AsyncGenerator[list[T]], start: int, limit: int | None, total: int) -> Self:
        """The part that these pages are; the first was read when this returns."""
        count = max(total - start, 0) if limit is None else min(max(total - start, 0), limit)
        first = await anext(pages, []) if count else []
        if not first or len(first) >= count:
            await pages.aclose()
            return cls(first[:count], start, len(first[:count]), total)
        return cls(first, start, count, total, _at_most(count - len(first), pages))

    @classmethod
    async def by_ids(cls, ids: Sequence[Id], start: int, total: int, read: Read[Id, T]) -> Self:
        """The records of these ids; `read` finds those of a page of ids, as far as they still exist."""
        first = await read(ids[:RECORDS_READ])
        if len(ids) <= RECORDS_READ:
            return cls(first, start, len(first), total)
        return cls(first, start, len(ids), total, _records(ids, read))

    @classmethod
    def within(cls, found: Sequence[T], start: int, limit: int | None) -> Self:
        """The part of a list that was read whole: one of few elements."""
        part = list(found[start : None if limit is None else start + limit])
        return cls(part, start, len(part), len(found))

    def shown(self, show: Callable[[T], Shown]) -> Part[Shown]:
        """The same as answers show it."""
        rest = None if self.rest is None else _shown(self.rest, show)
        return Part(list(map(show, self.first)), self.start, self.count, self.total, rest)

    async def whole(self) -> list[T]:
        """All elements of the part."""
        found = list(self.first)
        if self.rest is not None:
            async for page in self.rest:
                found += page
        return found


async def _at_most(left: int, pages: AsyncGenerator[list[T]]) -> AsyncGenerator[list[T]]:
    async for page in pages:
        yield page[:left]
        left -= len(page)
        if left <= 0:
            return


async def _records(ids: Sequence[Id], read: Read[Id, T]) -> AsyncGenerator[list[T]]:
    for start in range(RECORDS_READ, len(ids), RECORDS_READ):
        if page := await read(ids[start : start + RECORDS_READ]):
            yield page


async def _shown(pages: AsyncGenerator[list[T]], show: Callable[[T], Shown]) -> AsyncGenerator[list[Shown]]:
    async for page in pages:
        yield list(map(show, page))
