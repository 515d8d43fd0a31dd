"""The use of sessions, many at a time: what slides their ends. See `lifetimes/`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from homewire.store.database import PAGE, Database
from homewire.store.keys import ENDED_SESSION_KEPT_MS, ProjectSlot
from homewire.store.scripts.session_uses import TOUCH_SESSIONS
from homewire.store.tokens import key_tag

MOST_TOUCHED: Final = 50
"""Sessions of one script: each is three elements and up to seven commands, and while it runs, Redis does
nothing else. So many took 2 ms on a busy machine."""
NOTED_EVERY_MS: Final = 60_000
"""Between two notes of a session's last access, at least, whichever node makes them."""
NOTES: Final = 4
"""In the time that a session lives without being used, at least: one that lives for less than so many minutes
is noted more often than once a minute, or a user who is there would lose it."""


class Use(NamedTuple):
    """A session was used at a time, in ms since 1970."""

    session_id: str
    user_id: int
    device_id: int
    """Of a node session, whose `user_id` is 0."""
    key_hash: str
    used_ms: int


class Standing(NamedTuple):
    """Until when a session lives."""

    expires_ms: int
    """Unless it is used before that."""
    ends_ms: int
    """Whatever happens; 0: it has no such end."""


class KeySought(NamedTuple):
    """Whose key it is, and the first 8 bytes of its hash."""

    user_id: int
    device_id: int
    """Of a node session, whose `user_id` is 0."""
    key_tag: int


class Found(NamedTuple):
    """A live session, found by the tag of its key."""

    session_id: str
    key_hash: str
    last_access_ms: int
    slides_ms: int
    standing: Standing

    def is_due(self, now: int) -> bool:
        """Whether a use at this time would be noted."""
        return now - self.last_access_ms >= noted_every_ms(self.slides_ms)


def noted_every_ms(slides_ms: int) -> int:
    """How long after a noted use of a session the next one is, given how long it lives unused."""
    return min(NOTED_EVERY_MS, slides_ms // NOTES)


class SessionUses:
    """Writes that sessions were used, and looks up how keys in use stand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def touch(self, project_id: int, uses: Sequence[Use]) -> list[Standing | None]:
        """Note these uses, at most MOST_TOUCHED, and slide the ends of the sessions.

        How each stands afterwards, None for one that is over. One that was noted less than a minute before
        stands as it was. Of a project that is gone nothing lives. Raises Unavailable, NotConfirmed.
        """
        slot = ProjectSlot(project_id)
        names = [
            name
            for use in uses
            for name in (
                slot.session(use.session_id),
                slot.key(use.key_hash),
                _index(slot, use.user_id, use.device_id),
            )
        ]
        said = [part for use in uses for part in (use.session_id, use.key_hash, use.used_ms)]
        answer = await self._database.change(
            TOUCH_SESSIONS, slot, names, [NOTED_EVERY_MS, NOTES, ENDED_SESSION_KEPT_MS, *said]
        )
        if answer[0] == "unknown":
            return [None] * len(uses)
        return [_standing(*words) for words in zip(answer[1::2], answer[2::2], strict=True)]

    async def of_keys(self, project_id: int, keys: Collection[KeySought]) -> dict[KeySought, Found]:
        """The live sessions of keys; without those that are over. Raises Unavailable.

        In two round trips, whatever the number of keys: there is no index by tag, for few users have more
        than a handful of sessions, and none more than `sessions.MAX_SESSIONS`.
        """
        slot, now = ProjectSlot(project_id), self._database.now_ms()
        holders = sorted({(key.user_id, key.device_id) for key in keys})
        replies = await self._database.read_together(
            *(("ZRANGEBYSCORE", _index(slot, *holder), f"({now}", "+inf") for holder in holders)
        )
        live = [
            (holder, session_id.decode())
            for holder, reply in zip(holders, replies, strict=True)
            for session_id in reply
        ]
        found: dict[KeySought, Found] = {}
        for start in range(0, len(live), PAGE):
            page = live[start : start + PAGE]
            sessions = await self._read(slot, [session_id for _, session_id in page])
            for (holder, _), session in zip(page, sessions, strict=True):
                if session is not None:
                    found[KeySought(*holder, key_tag(session.key_hash))] = session
        return {key: session for key, session in found.items() if key in keys}

    async def _read(self, slot: ProjectSlot, ids: Sequence[str]) -> list[Found | None]:
        fields = ("key", "closed", "last_access", "slides", "expires", "ends")
        records = await self._database.read_together(
            *(("HMGET", slot.session(session_id), *fields) for session_id in ids)
        )
        return [_found(session_id, record) for session_id, record in zip(ids, records, strict=True)]


def _index(slot: ProjectSlot, user_id: int, device_id: int) -> str:
    return slot.user_sessions(user_id) if user_id else slot.device_sessions(device_id)


def _standing(expires: str, ends: str) -> Standing | None:
    return Standing(int(expires), int(ends)) if expires != "0" else None


def _found(session_id: str, record: Sequence[bytes | None]) -> Found | None:
    key, closed, *times = record
    if key is None or closed != b"0":
        return None
    last_access, slides, expires, ends = (int(each or 0) for each in times)
    return Found(session_id, key.decode(), last_access, slides, Standing(expires, ends))
