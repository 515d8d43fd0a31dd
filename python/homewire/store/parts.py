"""A part of a list: its first page, and later pages on demand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

RECORDS_READ: Final = 100
"""Records of one page: they take 1 to 2 ms of the event loop, and some 100 KB."""

T = TypeVar("T")
Id = TypeVar("Id")
Converted = TypeVar("Converted")
Read = Callable[[Sequence[Id]], Awaitable[list[T]]]


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """`count` elements of a list of `total`, without the first `start`.

    `first` is the first page; `rest` yields the other pages, None without any. An element that is added or
    removed meanwhile is there or not; no other element is missing or there twice.
    """

    first: list[T]
    start: int
    count: int
    total: int
    rest: AsyncGenerator[list[T]] | None = None

    @classmethod
    async def of(cls, pages: AsyncGenerator[list[T]], start: int, limit: int | None, total: int) -> Self:
        """The part with these pages. The first one is read when this returns."""
        count = max(total - start, 0) if limit is None else min(max(total - start, 0), limit)
        first = await anext(pages, []) if count else []
        if not first or len(first) >= count:
            await pages.aclose()
            return cls(first[:count], start, len(first[:count]), total)
        return cls(first, start, count, total, _at_most(count - len(first), pages))

    @classmethod
    async def by_ids(cls, ids: Sequence[Id], start: int, total: int, read: Read[Id, T]) -> Self:
        """The records of these ids. `read` returns the existing records of a page of ids."""
        first = await read(ids[:RECORDS_READ])
        if len(ids) <= RECORDS_READ:
            return cls(first, start, len(first), total)
        return cls(first, start, len(ids), total, _records(ids, read))

    @classmethod
    def within(cls, found: Sequence[T], start: int, limit: int | None) -> Self:
        """The part of a short list, which is read as a whole."""
        part = list(found[start : None if limit is None else start + limit])
        return cls(part, start, len(part), len(found))

    def map(self, convert: Callable[[T], Converted]) -> Part[Converted]:
        """The part with each element converted."""
        rest = None if self.rest is None else _mapped(self.rest, convert)
        return Part([convert(each) for each in self.first], self.start, self.count, self.total, rest)

    async def whole(self) -> list[T]:
        """The elements of all pages."""
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


async def _mapped(
    pages: AsyncGenerator[list[T]], convert: Callable[[T], Converted]
) -> AsyncGenerator[list[Converted]]:
    async for page in pages:
        yield [convert(each) for each in page]
