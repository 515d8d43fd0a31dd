"""Records of sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from homewire.store.keys import DAY_MS


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


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What a session records of the request that opened it."""

    address: str = ""
    """The address of the client."""
    host: str = ""
    """The Host header."""
    user_agent: str = ""
    node: str = ""
    """UUID of the node that received it (`Api.node_id`)."""


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
