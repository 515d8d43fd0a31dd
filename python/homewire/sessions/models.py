"""Records of sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from homewire.store.keys import DAY_MS


@dataclass(frozen=True, slots=True)
class Session:
    """A user key is a session; the session APIs are views of this record.

    Who signs in with a device's key gets one, too: a *node session*, whose `user_id` is 0.
    """

    id: str
    project_id: int
    user_id: int
    app_id: str
    """The app, or the name of the view that it came through: sessions-controller, rocket.chat."""
    started_ms: int
    expires_ms: int
    """`slides_ms` after the last use that was written down, at `ends_ms` at the latest."""
    last_access_ms: int
    address: str
    user_agent: str
    authentication_type: str
    """Bearer or Cookie."""
    version: int
    """Counted up on every change."""
    closed_ms: int = 0
    """0: not ended. Past `expires_ms` a session is over all the same."""
    host: str = ""
    """Of the login's URL (its Host header)."""
    node: str = ""
    """UUID of the node that made it."""
    roles: tuple[str, ...] = ("user",)
    device_id: int = 0
    """Of a node session; else 0."""
    slides_ms: int = 0
    """Unused for so long, it is over."""
    ends_ms: int = 0
    """When it is over however much it is used; 0: never."""
    key_hash: str = field(default="", repr=False)
    """SHA-256 of the key, 64 hex digits. The key itself is kept nowhere."""
    ancestors: tuple[str, ...] = ()
    """The sessions whose keys led to this one, from the one that a login opened to the one whose key made it.
    Empty: a login opened it. It ends with each of them, and no later than they may."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where a session comes from: what it records of the request that opened it."""

    address: str = ""
    """Of the peer."""
    host: str = ""
    """The Host header."""
    user_agent: str = ""
    node: str = ""
    """UUID of the node that took it (`Api.node_id`)."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When sessions are over by themselves."""

    slides_ms: int = 30 * DAY_MS
    """After so long without use."""
    absolute_ms: int = 365 * DAY_MS
    """However much they are used; 0: never."""

    @classmethod
    def of_seconds(cls, slides: float, absolute: float) -> Lifetime:
        """From the settings."""
        return cls(round(slides * 1000), round(absolute * 1000))


DEFAULT_LIFETIME: Final = Lifetime()
