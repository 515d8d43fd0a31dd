"""Records of sessions, and their stored form."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from homewire.errors import Conflict
from homewire.store.keys import DAY_MS

MAX_DEPTH: Final = 4
"""Maximum number of ancestors of a derived session."""
ID_BYTES: Final = 12
"""Bytes of a session id, which is random: 24 hex digits (the `_id` of spec 004)."""


@dataclass(frozen=True, slots=True)
class Session:
    """A user key is a session; the session APIs are views of this record.

    A login with a device's key opens a *node session*, which has `user_id` 0.
    """

    id: str
    project_id: int
    user_id: int
    app_id: str
    """The app, or the name of the session API of the login: sessions-controller, rocket.chat."""
    started_ms: int
    expires_ms: int
    """`slides_ms` after the last use that was noted, and at most `ends_ms`."""
    last_access_ms: int
    address: str
    user_agent: str
    authentication_type: str
    """Bearer or Cookie."""
    version: int
    """Counted up on every change."""
    closed_ms: int = 0
    """When it was ended; 0: never. A session is also over after `expires_ms`."""
    host: str = ""
    """The Host header of the login."""
    node: str = ""
    """UUID of the node that opened it."""
    roles: tuple[str, ...] = ("user",)
    device_id: int = 0
    """The device of a node session; else 0."""
    slides_ms: int = 0
    """It expires after this time without use."""
    ends_ms: int = 0
    """Its absolute end, in ms since 1970; 0: none."""
    key_hash: str = field(default="", repr=False)
    """SHA-256 of the key, 64 hex digits. The key itself is not stored."""
    ancestors: tuple[str, ...] = ()
    """The ids of the sessions that a derived session comes from, that of the login first. Empty for a session
    that a login opened. A session ends with each of its ancestors, and has their absolute end."""


def derived(session: Session, parent: Session) -> Session:
    """The session as it is when a parent's key makes it. Raises Conflict (TOO_MANY_SESSIONS)."""
    if len(parent.ancestors) + 1 > MAX_DEPTH:
        raise Conflict("TOO_MANY_SESSIONS", f"more than {MAX_DEPTH} keys would lead from the login to it")
    ends = min((end for end in (session.ends_ms, parent.ends_ms) if end), default=0)
    return replace(
        session,
        ancestors=(*parent.ancestors, parent.id),
        ends_ms=ends,
        expires_ms=min(session.expires_ms, ends or session.expires_ms),
    )


def record_fields(session: Session) -> tuple[str | int, ...]:
    """The stored record of a session: names and values in turns."""
    return (
        "app", session.app_id, "user", session.user_id, "device", session.device_id,
        "started", session.started_ms, "expires", session.expires_ms, "last_access", session.last_access_ms,
        "address", session.address, "host", session.host, "user_agent", session.user_agent,
        "scheme", session.authentication_type, "node", session.node, "roles", " ".join(session.roles),
        "slides", session.slides_ms, "ends", session.ends_ms, "ancestors", " ".join(session.ancestors),
        "version", session.version, "closed", session.closed_ms, "key", session.key_hash,
    )  # fmt: skip


def session_of(project_id: int, session_id: str, record: dict[str, str]) -> Session | None:
    """The session of a stored record; None for an empty one."""
    if not record:
        return None
    return Session(
        session_id, project_id, int(record["user"]), record["app"],
        int(record["started"]), int(record["expires"]), int(record["last_access"]),
        record["address"], record["user_agent"], record["scheme"],
        int(record["version"]), int(record["closed"]),
        record.get("host", ""), record.get("node", ""), tuple(record.get("roles", "user").split()),
        int(record.get("device", 0)), int(record.get("slides", 0)), int(record.get("ends", 0)),
        record["key"], tuple(record.get("ancestors", "").split()),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What a session records of the request that opened it."""

    address: str = ""
    """The address of the client."""
    host: str = ""
    """The Host header."""
    user_agent: str = ""
    node: str = ""
    """UUID of the node that received it (`RestContext.node_id`)."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When sessions expire."""

    slides_ms: int = 30 * DAY_MS
    """Time without use."""
    absolute_ms: int = 365 * DAY_MS
    """Time since the login, however much the session is used; 0: no such limit."""

    @classmethod
    def of_seconds(cls, slides: float, absolute: float) -> Lifetime:
        """A lifetime in s, as settings have it."""
        return cls(round(slides * 1000), round(absolute * 1000))


DEFAULT_LIFETIME: Final = Lifetime()


def is_session_id(text: str) -> bool:
    """Whether a text has the form of a session's id."""
    return len(text) == 2 * ID_BYTES and all(digit in "0123456789abcdef" for digit in text)
