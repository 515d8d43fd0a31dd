"""Lists of sessions against a model that does it all at once: parse, look up, filter, sort, page, write."""

from __future__ import annotations

import json
import operator
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homewire.compat.ndata_list import FoundSession, Selection, SortLimits
from homewire.compat.ndata_query import MEMBERS, OPERATORS, Kind, parse
from homewire.errors import Unavailable
from homewire.rest.context import SortSlots
from homewire.sessions.models import Session

DAY: Final = 1_691_147_978_000
TEXTS: Final = ("", "9", "99", "999", "a:b", "a;b", "a\\b", "Ada", "ada", "é")
USERS: Final = dict(enumerate(TEXTS, start=1))
AGENTS: Final = ("", "curl/8.1", "Wget/1.21")

texts = st.sampled_from(TEXTS)
instants = st.integers(DAY, DAY + 3)
sessions = st.builds(
    Session,
    st.text("0123456789abcdef", min_size=2, max_size=2),
    st.just(1),
    st.sampled_from(list(USERS)),
    texts,
    instants,
    instants,
    instants,
    st.just(""),
    st.sampled_from(AGENTS),
    st.sampled_from(["Bearer", "Cookie"]),
    st.integers(1, 3),
)


@dataclass(frozen=True)
class Asked:
    """An operation, as the model has it."""

    name: str
    kind: Kind
    operator: str
    arguments: tuple[str, ...]

    @property
    def parameter(self) -> tuple[str, str]:
        escaped = (
            each.replace("\\", "\\\\").replace(":", "\\:").replace(";", "\\;") for each in self.arguments
        )
        return self.name, ":".join([self.operator, *escaped])

    def holds(self, session: dict[str, Any]) -> bool:
        written = member(session, self.name)
        if self.operator in WITHIN:
            return WITHIN[self.operator](str(written), self.arguments[0])
        value = comparable(written, self.kind)
        wanted = [comparable(each, self.kind) for each in self.arguments]
        if self.operator in ("in", "nin"):
            return (value in wanted) is (self.operator == "in")
        return bool(COMPARED[self.operator](value, wanted[0]))


WITHIN: Final[dict[str, Callable[[str, str], bool]]] = {
    "contains": lambda text, part: part in text,
    "startswith": str.startswith,
    "endswith": str.endswith,
}
COMPARED: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq, "ne": operator.ne,
    "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le,
}  # fmt: skip


def member(session: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        session = session[part]
    return session


def comparable(written: Any, kind: Kind) -> Any:
    match kind:
        case Kind.TEXT:
            return written
        case Kind.NUMBER:
            return int(written)
        case Kind.INSTANT:
            return datetime.fromisoformat(written)


ARGUMENTS: Final = {
    Kind.TEXT: texts | st.sampled_from(["Bearer", "curl", "Wget"]),
    Kind.NUMBER: st.integers(0, 4).map(str),
    Kind.INSTANT: st.integers(0, 4).map(lambda ms: f"2023-08-04T11:19:38.00{ms}Z")
    | st.integers(0, 4).map(lambda ms: f"2023-08-04T13:19:38.00{ms}+02:00"),
}


@st.composite
def operations(draw: st.DrawFn) -> Asked:
    about = draw(st.sampled_from(MEMBERS))
    chosen = draw(st.sampled_from(sorted(OPERATORS)))
    if chosen in WITHIN:
        arguments = [draw(st.sampled_from(["", "9", "a", "Z", ".", "1", ":38", "\\"]))]
    else:
        count = draw(st.integers(1, 3)) if chosen in ("in", "nin") else 1
        arguments = [draw(ARGUMENTS[about.kind]) for _ in range(count)]
    return Asked(about.name, about.kind, chosen, tuple(arguments))


directions = st.tuples(st.sampled_from(MEMBERS), st.booleans())


def shown(session: Session) -> dict[str, Any]:
    """What an answer has of a session."""
    return {
        "sessionId": session.id,
        "identity": {
            "userName": USERS[session.user_id] or str(session.user_id),
            "deviceName": session.user_agent.split("/")[0],
            "envName": session.app_id,
            "authenticationType": session.authentication_type,
        },
        **{
            name: f"2023-08-04T11:19:{38 + (ms - DAY) // 1000}.{(ms - DAY) % 1000:03}Z"
            for name, ms in (
                ("startedAt", session.started_ms),
                ("expiresAt", session.expires_ms),
                ("lastAccessAt", session.last_access_ms),
            )
        },
        "_v": session.version,
    }


async def in_pages(some: Sequence[Session], size: int) -> AsyncIterator[list[Session]]:
    for start in range(0, len(some), size):
        yield list(some[start : start + size])


async def named(found: Sequence[FoundSession]) -> list[FoundSession]:
    return [
        each._replace(
            row=each.row._replace(user_name=USERS[each.session.user_id] or str(each.session.user_id))
        )
        for each in found
    ]


def by_start(some: Sequence[Session]) -> list[Session]:
    return sorted(some, key=lambda session: (session.started_ms, session.id))


@settings(max_examples=400, deadline=None)
@given(
    some=st.lists(sessions, max_size=25, unique_by=lambda session: session.id).map(by_start),
    asked=st.lists(operations(), max_size=2),
    order=st.lists(directions, max_size=3),
    skip=st.integers(0, 12),
    take=st.none() | st.integers(0, 12),
    page=st.integers(1, 8),
    bounds=st.sampled_from(
        [SortLimits(), SortLimits(few=0, run_bytes=0), SortLimits(few=5, run_bytes=2_000)]
    ),
)
async def test_list_agrees_with_model(
    some: list[Session],
    asked: list[Asked],
    order: list[tuple[Any, bool]],
    skip: int,
    take: int | None,
    page: int,
    bounds: SortLimits,
) -> None:
    parameters = [each.parameter for each in asked]
    parameters += [("$sort", ("-" if descending else "") + each.name) for each, descending in order]
    parameters += [("$skip", str(skip))] + ([("$take", str(take))] if take is not None else [])

    matching = [each for each in map(shown, some) if all(it.holds(each) for it in asked)]
    for each, descending in reversed(order):
        matching.sort(key=lambda it: comparable(member(it, each.name), each.kind), reverse=descending)
    part = matching[skip : None if take is None else skip + take]

    selection = Selection(in_pages(some, page), named, parse(parameters), nullcontext, bounds)
    content = b"".join([chunk async for chunk in selection.result()])
    assert json.loads(content) == {"items": part, "count": len(part), "totalCount": len(matching)}
    counted = Selection(
        in_pages(some, page), named, parse([*parameters, ("$count", "true")]), nullcontext, bounds
    )
    content = b"".join([chunk async for chunk in counted.result()])
    assert json.loads(content) == {"count": len(part), "totalCount": len(matching)}


async def test_names_are_read_only_where_needed() -> None:
    some = [
        Session(f"{number:02}", 1, 2, "app" if number % 2 else "", DAY, DAY, DAY, "", "", "Bearer", 1)
        for number in range(20)
    ]
    looked_up: list[str] = []

    async def counting(found: Sequence[FoundSession]) -> list[FoundSession]:
        looked_up.extend(each.row.session_id for each in found)
        return await named(found)

    async def asks(*parameters: tuple[str, str]) -> set[str]:
        looked_up.clear()
        async for _ in Selection(in_pages(some, 7), counting, parse(parameters), nullcontext).result():
            pass
        return set(looked_up)

    ids = [session.id for session in some]
    assert await asks() == set(ids)
    assert await asks(("$take", "3")) == set(ids[:3])
    assert await asks(("$take", "3"), ("$sort", "-sessionId")) == set(ids[-3:])
    assert await asks(("identity.envName", "app"), ("identity.userName", "nobody")) == set(ids[1::2])


async def test_so_many_lists_are_sorted_in_files_and_no_more() -> None:
    some = [Session(f"{number:02}", 1, 2, "", DAY, DAY, DAY, "", "", "Bearer", 1) for number in range(5)]
    slots = SortSlots(3, 2)

    def listing(project: int) -> Any:
        slot = partial(slots.taken, project)
        bounds = SortLimits(few=0, run_bytes=0)
        return Selection(in_pages(some, 2), named, parse([("$sort", "_v")]), slot, bounds).result()

    async def refused(project: int) -> Any:
        with pytest.raises(Unavailable) as refusal:
            await anext(listing(project))
        return refusal.value.data["limit"]

    running = [listing(1), listing(1)]
    for each in running:
        await anext(each)
    assert await refused(1) == "sorted_lists_per_project"
    running.append(listing(2))
    await anext(running[-1])
    assert await refused(2) == await refused(3) == "sorted_lists"
    assert slots.metrics() == {"sorted_lists": 3, "sorted_lists_refused": 3}
    await running[0].aclose()
    assert len([chunk async for chunk in listing(1) if chunk]) == 2
    for each in running:
        await each.aclose()
    assert slots.metrics()["sorted_lists"] == 0
