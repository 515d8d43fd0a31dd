"""From pages of sessions to the answer to a question, with never more than a part of it in memory."""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Final, NamedTuple

from homewire.api.context import Api
from homewire.api.dialects.ndata_query import Question
from homewire.api.dialects.ndata_rows import DEVICE_NAME, USER_NAME, Row, shown
from homewire.api.dialects.ndata_sort import RUN_BYTES, Entry, Sorter, sort_key
from homewire.api.dialects.user_agents import device_of
from homewire.errors import Unavailable
from homewire.model import Session, User


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of what is in memory while an answer is made."""

    few: int = 1_000
    """If no row behind this one is wanted, they are sorted without a file."""
    run_bytes: int = RUN_BYTES


USUAL: Final = Bounds()


class Found(NamedTuple):
    """A session that may be part of an answer. The names in its row may still be missing."""

    row: Row
    session: Session


Slot = Callable[[], AbstractContextManager[None]]
Naming = Callable[[Sequence[Found]], Awaitable[list[Found]]]
"""Puts the names into rows that have none yet."""


class Names:
    """What stands in other records than the session's: who its user is, or its device."""

    def __init__(self, api: Api, project_id: int) -> None:
        self._api = api
        self._project_id = project_id

    async def __call__(self, found: Sequence[Found]) -> list[Found]:
        """The same with the names in their rows; those of many are looked up together."""
        users = await self._api.store.users.any_of(
            self._project_id, list({each.session.user_id for each in found if each.session.user_id})
        )
        devices = await self._api.store.devices.get_many(
            self._project_id, list({each.session.device_id for each in found if each.session.device_id})
        )
        names = {device.id: device.name for device in devices}
        return [_named(each, users, names) for each in found]


def _named(found: Found, users: dict[int, User], devices: dict[int, str]) -> Found:
    row, session = found
    if session.device_id:
        name = devices.get(session.device_id) or row.device_name
        return Found(row._replace(user_name=str(session.device_id), device_name=name), session)
    return Found(row._replace(user_name=_user_name(session, users.get(session.user_id))), session)


def _user_name(session: Session, user: User | None) -> str:
    known = user and (user.email or user.phone or user.external_key)
    return known or str(session.user_id)


def unnamed(session: Session) -> Found:
    """What the session's own record says."""
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
    return Found(row, session)


class Selection:
    """The sessions that a question asks for. `total` is right once they all were looked at."""

    def __init__(
        self,
        pages: AsyncIterator[list[Session]],
        names: Naming,
        question: Question,
        slot: Slot,
        bounds: Bounds = USUAL,
    ) -> None:
        """`slot` is held while rows are sorted in a file."""
        self._slot = slot
        self._bounds = bounds
        self._pages = pages
        self._names = names
        self._question = question
        self._end = None if question.take is None else question.skip + question.take
        self.total = 0

    async def count(self) -> tuple[int, int]:
        """How many sessions the answer has, and how many there are."""
        async for _ in self._matching():
            pass
        end = self.total if self._end is None else min(self._end, self.total)
        return max(end - self._question.skip, 0), self.total

    @property
    def in_file(self) -> bool:
        """Whether so many rows are sorted that it takes a file."""
        return bool(self._question.order) and not (self._end is not None and self._end <= self._bounds.few)

    def batches(self) -> AsyncGenerator[list[bytes]]:
        """The sessions of the answer in order, as JSON. Raises Unavailable."""
        if self.in_file:
            return self._all_in_order()
        return self._few_in_order() if self._question.order else self._as_they_come()

    async def _matching(self) -> AsyncIterator[list[Found]]:
        """A page at a time what meets every condition. Others' records are read only if that depends on them,
        and for those sessions only that meet all the others."""
        look_up = self._question.concerns(USER_NAME, DEVICE_NAME)
        conditions = self._question.conditions
        own = [each for each in conditions if each.member not in (USER_NAME, DEVICE_NAME)]
        others = [each for each in conditions if each.member in (USER_NAME, DEVICE_NAME)]
        async for page in self._pages:
            found = [each for each in map(unnamed, page) if all(it.holds(each.row) for it in own)]
            if look_up:
                named = await self._names(found)
                found = [each for each in named if all(it.holds(each.row) for it in others)]
            self.total += len(found)
            if found:
                yield found

    async def _as_they_come(self) -> AsyncGenerator[list[bytes]]:
        async for found in self._matching():
            before = self.total - len(found)
            end = None if self._end is None else max(self._end - before, 0)
            if part := found[max(self._question.skip - before, 0) : end]:
                yield await self._written(part)

    async def _few_in_order(self) -> AsyncGenerator[list[bytes]]:
        kept: list[tuple[bytes, Found]] = []
        async for found in self._matching():
            keyed = ((sort_key(each.row, self._question.order), each) for each in found)
            kept = heapq.nsmallest(self._end or 0, chain(kept, keyed), key=itemgetter(0))
        if part := [found for _, found in kept[self._question.skip :]]:
            yield await self._written(part)

    async def _all_in_order(self) -> AsyncGenerator[list[bytes]]:
        order = self._question.order
        try:
            with self._slot(), Sorter(self._bounds.run_bytes) as sorter:
                async for found in self._matching():
                    named = await self._names(found)
                    await sorter.add([Entry(sort_key(row, order), shown(row)) for row, _ in named])
                async for batch in sorter.batches(self._question.skip, self._question.take):
                    yield batch
        except OSError as error:
            raise Unavailable(problem="there is no room to sort in") from error

    async def _written(self, found: Sequence[Found]) -> list[bytes]:
        return [shown(row) for row, _ in await self._names(found)]


async def result(selection: Selection) -> AsyncGenerator[bytes]:
    """A QueryResult, in chunks. Raises Unavailable, where a valid document has not ended yet."""
    count = 0
    before = b'{"items":['
    async with aclosing(selection.batches()) as batches:
        async for batch in batches:
            yield before + b",".join(batch)
            count += len(batch)
            before = b","
    opening = b"" if count else before
    yield opening + f'],"count":{count},"totalCount":{selection.total}}}'.encode()
