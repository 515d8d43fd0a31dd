"""What Rocket.Chat's clients see of a session: a pure function of its record (spec 004, *Example Result*)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from homewire.compat.user_agents import device_of
from homewire.errors import InvalidInput
from homewire.rest.models import Answer, Timestamp
from homewire.sessions.models import Session
from homewire.timestamps import timestamp

Direction = Literal[1, -1]

_BY_IMPORTANCE: Final = ("admin", "user")


class OperatingSystem(Answer):
    """What the client runs on."""

    name: str
    version: str


class RocketChatDevice(Answer):
    """What the User-Agent of the login says. Empty what it doesn't."""

    type: str
    name: str
    long_version: str
    os: OperatingSystem
    version: str


class RocketChatSession(Answer, kw_only=True):
    """A session."""

    id_: str = msgspec.field(name="_id")
    type: Literal["session"]
    session_id: str
    instance_id: str
    login_token: str
    ip: str
    host: str
    device: RocketChatDevice
    user_id: str
    roles: list[str]
    most_important_role: str
    login_at: Timestamp
    day: int
    month: int
    year: int
    search_term: str
    created_at: Timestamp
    updated_at: Timestamp = msgspec.field(name="_updatedAt")
    last_activity_at: Timestamp
    closed_at: Timestamp | None = None


class RocketChatSessionInfo(RocketChatSession, kw_only=True):
    """A session, as the whole answer."""

    success: Literal[True]


def shown(session: Session, now_ms: int) -> RocketChatSession:
    """A session at this time. One whose time is over is closed, since then."""
    device = device_of(session.user_agent)
    began = datetime.fromtimestamp(session.started_ms // 1000, UTC)
    closed_ms = session.closed_ms or (session.expires_ms if session.expires_ms <= now_ms else 0)
    user_id = str(session.user_id)
    return RocketChatSession(
        id_=session.id,
        type="session",
        session_id=session.id,
        instance_id=session.node,
        login_token=base64.b64encode(bytes.fromhex(session.key_hash)).decode(),
        ip=session.address,
        host=session.host,
        device=RocketChatDevice(
            type=device.type,
            name=device.name,
            long_version=device.long_version,
            os=OperatingSystem(name=device.os_name, version=device.os_version),
            version=device.version,
        ),
        user_id=user_id,
        roles=list(session.roles),
        most_important_role=most_important(session.roles),
        login_at=timestamp(session.started_ms),
        day=began.day,
        month=began.month,
        year=began.year,
        search_term=device.name + device.type + device.os_name + session.id + user_id,
        created_at=timestamp(session.started_ms),
        updated_at=timestamp(max(session.last_access_ms, closed_ms)),
        last_activity_at=timestamp(session.last_access_ms),
        closed_at=timestamp(closed_ms) if closed_ms else None,
    )


def most_important(roles: Iterable[str]) -> str:
    """The role that permits most."""
    held = list(roles)
    return next((role for role in _BY_IMPORTANCE if role in held), held[0] if held else "")


_SORT_KEYS: Final[dict[str, Callable[[RocketChatSession], str]]] = {
    "loginAt": lambda each: each.login_at,
    "createdAt": lambda each: each.created_at,
    "lastActivityAt": lambda each: each.last_activity_at,
    "_updatedAt": lambda each: each.updated_at,
    "sessionId": lambda each: each.session_id,
    "ip": lambda each: each.ip,
    "host": lambda each: each.host,
    "device.type": lambda each: each.device.type,
    "device.name": lambda each: each.device.name,
    "device.version": lambda each: each.device.version,
    "device.os.name": lambda each: each.device.os.name,
    "device.os.version": lambda each: each.device.os.version,
}


def decode_sort(text: str) -> dict[str, Direction]:
    """An order as clients write it: `{"loginAt": -1}`, what counts most first. Raises InvalidInput."""
    try:
        order = msgspec.json.decode(text, type=dict[str, Direction])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidInput("sort", "must be a JSON object of members, each with 1 or -1") from None
    if order.keys() <= _SORT_KEYS.keys():
        return order
    raise InvalidInput("sort", f"must name members among {', '.join(_SORT_KEYS)}")


def selected(
    sessions: Iterable[RocketChatSession], text: str, order: dict[str, Direction]
) -> list[RocketChatSession]:
    """Those with the text in their search term, in whatever case, in this order; equal ones by their id."""
    wanted = text.casefold()
    found = sorted(
        (each for each in sessions if wanted in each.search_term.casefold()), key=_SORT_KEYS["sessionId"]
    )
    for member, direction in reversed(order.items()):
        found.sort(key=_SORT_KEYS[member], reverse=direction < 0)
    return found
