"""NData, the query language of spec 003: from the parameters of a URL to a query.

`member=op:argument:argument;op:argument`: `;` separates operations, all of which must hold, `:` arguments,
and a member that is named again adds to what it was asked before. A value without an operator must be
equal. Where a text has one of `:`, `;` and `\\` in it, `\\` stands before that; times need none. Names
of members and operators may be in any case; texts are compared exactly, by code point.

A session as spec 003 shows it, and its members by name: what can be asked about, and how it is written.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from fractions import Fraction
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType, field, json

from homewire.errors import InvalidInput
from homewire.rest.decoding import decode_fields
from homewire.rest.models import Answer, Timestamp
from homewire.rest.operation import Count
from homewire.timestamps import timestamp

MAX_LENGTH: Final = 4_096
"""Characters of a parameter's value."""
MAX_OPERATIONS: Final = 100
"""Of all members together."""
MAX_SHOWN_NAME: Final = 64
"""Characters of a parameter's name that an error repeats."""

Operand = str | int | Fraction


@dataclass(frozen=True, slots=True)
class Operator:
    """What can be asked of a value. `takes_many`: one argument or more, instead of exactly one."""

    holds: Callable[[Any, Any], bool]
    takes_many: bool = False
    of_text: bool = False
    """It compares the value as answers show it, whatever the kind of the member."""


OPERATORS: Final[Mapping[str, Operator]] = {
    "eq": Operator(operator.eq),
    "ne": Operator(operator.ne),
    "gt": Operator(operator.gt),
    "gte": Operator(operator.ge),
    "lt": Operator(operator.lt),
    "lte": Operator(operator.le),
    "in": Operator(lambda value, wanted: value in wanted, takes_many=True),
    "nin": Operator(lambda value, unwanted: value not in unwanted, takes_many=True),
    "contains": Operator(lambda text, part: part in text, of_text=True),
    "startswith": Operator(lambda text, start: text.startswith(start), of_text=True),
    "endswith": Operator(lambda text, end: text.endswith(end), of_text=True),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One operation on one member. `operand` is a set of them where the operator takes many."""

    member: Member
    operator: Operator
    operand: Operand | frozenset[Operand]

    def holds(self, row: Row) -> bool:
        """Whether the row meets it."""
        value = self.member.written(row) if self.operator.of_text else row[self.member.place]
        return self.operator.holds(value, self.operand)


@dataclass(frozen=True, slots=True)
class Direction:
    """A member to sort by."""

    member: Member
    descending: bool


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: which rows, in which order, and which part of them."""

    conditions: tuple[Condition, ...] = ()
    order: tuple[Direction, ...] = ()
    """No member twice. Empty: in the order in which they started."""
    skip: int = 0
    take: int | None = None
    """None: all."""
    count_only: bool = False

    def needs_names(self, *members: Member) -> bool:
        """Whether one of them has to be known to find the rows and sort them."""
        asked = {each.member for each in self.conditions} | {each.member for each in self.order}
        return not asked.isdisjoint(members)


class Part(msgspec.Struct, kw_only=True):
    """Which part is wanted."""

    skip: Count = msgspec.field(default=0, name="$skip")
    take: Count | None = msgspec.field(default=None, name="$take")
    count: bool = msgspec.field(default=False, name="$count")


def parse(parameters: Iterable[tuple[str, str]]) -> Query:
    """What the parameters of a URL ask. Raises InvalidInput, which names the parameter."""
    paging: dict[str, str] = {}
    conditions: list[Condition] = []
    order: list[Direction] = []
    for name, value in parameters:
        folded = name.casefold()
        if len(value) > MAX_LENGTH:
            raise InvalidInput(_shown(name), f"must not have more than {MAX_LENGTH} characters")
        if folded in ("$skip", "$take", "$count"):
            if folded in paging:
                raise InvalidInput(folded, "stands there twice")
            paging[folded] = value
        elif folded == "$sort":
            order.extend(_directions(value))
        elif folded in BY_NAME:
            conditions.extend(_conditions(BY_NAME[folded], value))
            if len(conditions) > MAX_OPERATIONS:
                raise InvalidInput(
                    BY_NAME[folded].name, f"there must not be more than {MAX_OPERATIONS} operations"
                )
        else:
            raise InvalidInput(_shown(name), "is no member of a session, and no parameter of a list")
    part = decode_fields("query", paging, Part)
    return Query(tuple(conditions), _require_distinct(order), part.skip, part.take, part.count)


def _shown(name: str) -> str:
    return name[:MAX_SHOWN_NAME]


def _directions(value: str) -> Iterator[Direction]:
    for text in value.split(","):
        # A `+` of a URL is a space by now.
        written = text.strip()
        sign = written[0] if written.startswith(("+", "-")) else ""
        written = written.removeprefix(sign).strip()
        name, colon, suffix = written.partition(":")
        if colon and (sign or suffix.casefold() not in ("asc", "desc")):
            raise InvalidInput(
                "$sort", "a direction is a leading `-`, or one of `:asc` and `:desc` behind it"
            )
        member = BY_NAME.get(name.casefold())
        if member is None:
            raise InvalidInput("$sort", "must be a comma list of members of a session")
        yield Direction(member, sign == "-" or suffix.casefold() == "desc")


def _require_distinct(order: Iterable[Direction]) -> tuple[Direction, ...]:
    """To sort by a member again sorts nothing more."""
    first: dict[Member, Direction] = {}
    for direction in order:
        first.setdefault(direction.member, direction)
    return tuple(first.values())


def _conditions(member: Member, value: str) -> Iterator[Condition]:
    for parts in _operations(value):
        if member.kind is Kind.INSTANT and _INSTANT.fullmatch(":".join(parts)):
            parts = ["eq", *parts]
        elif len(parts) == 1:
            parts = ["eq", parts[0]]
        chosen = OPERATORS.get(parts[0].casefold())
        if chosen is None:
            raise InvalidInput(member.name, f"the operators are {', '.join(OPERATORS)}")
        yield Condition(member, chosen, _operand(member, chosen, parts[1:]))


def _operations(value: str) -> list[list[str]]:
    """The operations, each as its parts, without the backslashes that stand before separators."""
    operations = [[""]]
    for piece in _PIECE.findall(value):
        if piece == ";":
            operations.append([""])
        elif piece == ":":
            operations[-1].append("")
        else:
            operations[-1][-1] += piece[-1]
    return operations


def _operand(member: Member, chosen: Operator, arguments: list[str]) -> Operand | frozenset[Operand]:
    if member.kind is Kind.INSTANT:
        arguments = [":".join(arguments)] if chosen.of_text else _instants(member, ":".join(arguments))
    if chosen.takes_many:
        return frozenset(_value(member, argument) for argument in arguments)
    if len(arguments) != 1:
        raise InvalidInput(member.name, "the operator takes one argument (a colon in it is written `\\:`)")
    return arguments[0] if chosen.of_text else _value(member, arguments[0])


def _value(member: Member, argument: str) -> Operand:
    match member.kind:
        case Kind.TEXT:
            return argument
        case Kind.NUMBER:
            if not _INTEGER.fullmatch(argument):
                raise InvalidInput(member.name, "must be an integer")
            return int(argument)
        case Kind.INSTANT:
            return _instant(member, argument)


_PIECE: Final = re.compile(r"\\[:;\\]|.", re.DOTALL)
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_INSTANT: Final = re.compile(
    r"""(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})
        ([Tt\ ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(:(?P<second>[0-9]{2})([.,](?P<fraction>[0-9]{1,9}))?)?
        ([Zz]|(?P<sign>[+\ -])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2}))?)?""",
    re.VERBOSE,
)
_ONE_OF_INSTANTS: Final = re.compile(f"({_INSTANT.pattern})(?=:|\\Z)", re.VERBOSE)


def _instants(member: Member, text: str) -> list[str]:
    """Several times, between them colons; within them, too."""
    found: list[str] = []
    place = 0
    while True:
        match = _ONE_OF_INSTANTS.match(text, place)
        if match is None:
            raise _no_instant(member)
        found.append(match[0])
        place = match.end() + 1
        if place > len(text):
            return found


def _instant(member: Member, text: str) -> int | Fraction:
    """In ms since 1970; an int if it is one. Without an offset it is UTC."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise _no_instant(member)
    hour, minute, second, hours, minutes = (
        int(match[name] or 0) for name in ("hour", "minute", "second", "hours", "minutes")
    )
    try:
        day = datetime.fromisoformat(match["date"])
        time = day.replace(hour=hour, minute=minute, second=second, tzinfo=UTC)
    except ValueError:
        raise _no_instant(member) from None
    if hours > 23 or minutes > 59:
        raise _no_instant(member)
    # In a query, the `+` of an offset is a space.
    east = (hours * 60 + minutes) * (-60 if match["sign"] == "-" else 60)
    seconds = int((time - _EPOCH).total_seconds()) - east
    exact = seconds * 1000 + Fraction(int((match["fraction"] or "0").ljust(9, "0")), 1_000_000)
    return int(exact) if exact.denominator == 1 else exact


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _no_instant(member: Member) -> InvalidInput:
    return InvalidInput(member.name, "must be a date, or a time as in 2023-08-04T11:19:38.015Z")


class Row(NamedTuple):
    """One session of a list. Times in ms since 1970."""

    session_id: str
    user_name: str
    device_name: str
    env_name: str
    authentication_type: str
    started_ms: int
    expires_ms: int
    last_access_ms: int
    version: int


class Kind(Enum):
    """What the values of a member are."""

    TEXT = auto()
    NUMBER = auto()
    INSTANT = auto()
    """In ms since 1970; in questions and answers RFC 3339."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a session: its name in questions and answers, and its place in a `Row`."""

    name: str
    kind: Kind
    place: int

    def written(self, row: Row) -> str:
        """The value as an answer has it."""
        value = row[self.place]
        return timestamp(int(value)) if self.kind is Kind.INSTANT else str(value)


USER_NAME: Final = Member("identity.userName", Kind.TEXT, 1)
DEVICE_NAME: Final = Member("identity.deviceName", Kind.TEXT, 2)

MEMBERS: Final = (
    Member("sessionId", Kind.TEXT, 0),
    USER_NAME,
    DEVICE_NAME,
    Member("identity.envName", Kind.TEXT, 3),
    Member("identity.authenticationType", Kind.TEXT, 4),
    Member("startedAt", Kind.INSTANT, 5),
    Member("expiresAt", Kind.INSTANT, 6),
    Member("lastAccessAt", Kind.INSTANT, 7),
    Member("_v", Kind.NUMBER, 8),
)

BY_NAME: Final[Mapping[str, Member]] = {member.name.casefold(): member for member in MEMBERS}
"""Clients write the names in whatever case."""


class Identity(Answer, omit_defaults=False):
    """User, client and app of a session."""

    user_name: str
    """E-mail address, phone number or external key of the user, else the id of the user or device."""
    device_name: str
    """What the login's User-Agent speaks of, or the name of the device that logged in."""
    env_name: str
    """The app."""
    authentication_type: Literal["Bearer", "Cookie"]


class NDataSession(Answer, omit_defaults=False):
    """A live session."""

    session_id: str
    identity: Identity
    started_at: Timestamp
    expires_at: Timestamp
    last_access_at: Timestamp
    version: int = field(name="_v")
    """Counted up on every change."""


class QueryResult(Answer):
    """Some of the sessions that were asked for."""

    count: int
    """Of them."""
    total_count: int
    """Of all that were asked for, before paging."""
    items: list[NDataSession] | UnsetType = UNSET
    """Missing with `$count=true`."""


def shown(row: Row) -> bytes:
    """The JSON of one session."""
    return _encode(session_of(row))


def session_of(row: Row) -> NDataSession:
    """What an answer has of it."""
    scheme: Any = row.authentication_type
    return NDataSession(
        session_id=row.session_id,
        identity=Identity(
            user_name=row.user_name,
            device_name=row.device_name,
            env_name=row.env_name,
            authentication_type=scheme,
        ),
        started_at=timestamp(row.started_ms),
        expires_at=timestamp(row.expires_ms),
        last_access_at=timestamp(row.last_access_ms),
        version=row.version,
    )


_encode: Final = json.Encoder().encode
