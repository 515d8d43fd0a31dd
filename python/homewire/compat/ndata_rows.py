"""A session as spec 003 shows it, and its members by name: what can be asked about, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Literal, NamedTuple

from msgspec import UNSET, UnsetType, field, json

from homewire.rest.models import Answer, Timestamp
from homewire.timestamps import timestamp


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
    """Who holds a session, from what, in which app."""

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
