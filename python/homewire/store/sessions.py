"""Sessions: a user key *is* one, wherever somebody logs in. The session APIs are views of these records."""

from __future__ import annotations

import secrets
from typing import Final

from homewire.errors import Conflict, UnknownRecord
from homewire.model import Session
from homewire.store import checks, tokens
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ENDED_SESSION_KEPT_MS, SESSION_LIFETIME_MS, ProjectSlot
from homewire.store.scripts.sessions import END_SESSION, OPEN_SESSION, TOUCH_SESSION

MAX_SESSIONS: Final = 300
"""Live sessions of one user; one more ends the one that expires first. All of a user's sessions and keys
can so be removed by one script within the limit of elements."""
ID_BYTES: Final = 12
"""A session id is random and tells nothing of the key: 24 hex digits (the `_id` of spec 004)."""


class Sessions:
    """The sessions of the users of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(
        self,
        project_id: int,
        user_id: int,
        app_id: str,
        address: str,
        user_agent: str,
        authentication_type: str = "Bearer",
        lifetime_ms: int = SESSION_LIFETIME_MS,
        password_hash: str = "",
    ) -> tuple[Session, str]:
        """A new session and its key, which is shown this once. The only function that makes user keys.

        `app_id` is not looked up: whether somebody may sign in with an app is the login's question. It may
        be empty, for users of a BYOU project. With `password_hash` the session is opened only if that is
        still the hash of the user's password. Raises UnknownRecord without the project or the user, and
        Conflict (CONFLICT) when the password has changed.
        """
        now = self._database.now_ms()
        session = Session(
            secrets.token_hex(ID_BYTES), project_id, user_id,
            checks.app_id(app_id) if app_id else "",
            now, now + lifetime_ms, now,
            checks.header(address, checks.MAX_ADDRESS), checks.header(user_agent, checks.MAX_USER_AGENT),
            authentication_type, version=1,
        )  # fmt: skip
        token, reference = tokens.mint(project_id)
        for _ in range(ATTEMPTS):
            answer = await self._store(session, reference.hash, password_hash)
            if answer[0] == "moved":
                raise Conflict("CONFLICT", "the password has changed")
            if answer[0] != "full":
                require_ok(answer, project=project_id, user=user_id)
                return session, token
            await self._make_room(project_id, user_id, answer[1])
        raise outrun("user")

    async def get(self, project_id: int, session_id: str) -> Session | None:
        """A session, live, expired or ended, as long as its record is kept."""
        if not _is_id(session_id):
            return None
        return _session(project_id, session_id, await self._record(project_id, session_id))

    async def of_token(self, token: str) -> Session | None:
        """The live session that a user key is; None for every other key."""
        reference = tokens.parse(token)
        if reference is None:
            return None
        key = ProjectSlot(reference.project_id).key(reference.hash)
        session_id = await self._database.read("HGET", key, "session")
        session = await self.get(reference.project_id, session_id.decode()) if session_id else None
        return session if session is not None and self._is_live(session) else None

    async def of_user(self, project_id: int, user_id: int) -> list[Session]:
        """The live sessions of a user, the one that expires first first."""
        slot = ProjectSlot(project_id)
        now = self._database.now_ms()
        reply = await self._database.read(
            "ZRANGEBYSCORE", slot.user_sessions(user_id), f"({now}", "+inf", "LIMIT", 0, MAX_SESSIONS
        )
        ids = [member.decode() for member in reply]
        records = await self._database.read_hashes([slot.session(session_id) for session_id in ids])
        found = (_session(project_id, each, record) for each, record in zip(ids, records, strict=True))
        return [session for session in found if session is not None and self._is_live(session)]

    async def touch(self, project_id: int, session_id: str) -> None:
        """Note that the session was used now. A write: callers do it seldom. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            TOUCH_SESSION, slot, [slot.session(session_id)], [self._database.now_ms()]
        )
        require_ok(answer, project=project_id, session=session_id)

    async def end(self, project_id: int, session_id: str) -> Session:
        """End a live session: its key is dead when this returns. The session as it is then.

        Raises UnknownRecord.
        """
        record = await self._record(project_id, session_id) if _is_id(session_id) else {}
        if not record:
            raise UnknownRecord("session", session_id)
        slot, now = ProjectSlot(project_id), self._database.now_ms()
        user_id = int(record["user"])
        answer = await self._database.change(
            END_SESSION,
            slot,
            [
                slot.session(session_id), slot.key(record["key"]), slot.user_sessions(user_id),
                slot.user_homes(user_id), slot.user_ended_keys(user_id),
            ],
            [session_id, now, now + ENDED_SESSION_KEPT_MS, user_id, record["key"]],
        )  # fmt: skip
        require_ok(answer, project=project_id, session=session_id)
        ended = await self.get(project_id, session_id)
        if ended is None:
            raise UnknownRecord("session", session_id)
        return ended

    async def end_all(self, project_id: int, user_id: int) -> None:
        """End every session that the user has now. Who opens one meanwhile may keep it."""
        for session in await self.of_user(project_id, user_id):
            try:
                await self.end(project_id, session.id)
            except UnknownRecord:
                continue

    async def _store(self, session: Session, token_hash: str, password_hash: str) -> list[str]:
        slot = ProjectSlot(session.project_id)
        return await self._database.change(
            OPEN_SESSION,
            slot,
            [
                slot.user(session.user_id), slot.user_sessions(session.user_id),
                slot.session(session.id), slot.key(token_hash),
            ],
            [
                session.user_id, session.id, token_hash, session.app_id, session.started_ms,
                session.expires_ms, session.expires_ms + ENDED_SESSION_KEPT_MS,
                session.address, session.user_agent, session.authentication_type, MAX_SESSIONS,
                password_hash,
            ],
        )  # fmt: skip

    async def _make_room(self, project_id: int, user_id: int, session_id: str) -> None:
        try:
            await self.end(project_id, session_id)
        except UnknownRecord:
            # Ended by somebody else in the meantime, or a member of the index that lost its record.
            await self._database.write("ZREM", ProjectSlot(project_id).user_sessions(user_id), session_id)

    async def _record(self, project_id: int, session_id: str) -> dict[str, str]:
        return await self._database.read_hash(ProjectSlot(project_id).session(session_id))

    def _is_live(self, session: Session) -> bool:
        return session.closed_ms == 0 and session.expires_ms > self._database.now_ms()


def _is_id(session_id: str) -> bool:
    return len(session_id) == 2 * ID_BYTES and all(digit in "0123456789abcdef" for digit in session_id)


def _session(project_id: int, session_id: str, record: dict[str, str]) -> Session | None:
    if not record:
        return None
    return Session(
        session_id, project_id, int(record["user"]), record["app"],
        int(record["started"]), int(record["expires"]), int(record["last_access"]),
        record["address"], record["user_agent"], record["scheme"],
        int(record["version"]), int(record["closed"]),
    )  # fmt: skip
