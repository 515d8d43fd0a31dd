"""The repository of sessions: each user key *is* a session. All session APIs return these records.

Ended sessions can be read for a while, and only the newest of each user and device.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.auth import tokens
from homewire.errors import Conflict, Unavailable, UnknownRecord
from homewire.sessions.models import (
    ID_BYTES,
    ClientInfo,
    Lifetime,
    Session,
    derived,
    is_session_id,
    record_fields,
    session_of,
)
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ENDED_SESSION_TTL_MS, ProjectSlot
from homewire.store.script import Script, changing, lua, removing

ENDED_KEY_TTL_MS: Final = 60_000
"""How much later than another shard, at most, a reader may come to the user's own, where the end of a key
stands in any case."""
ALWAYS_OPENED: Final = 10
"""Live sessions of a user or device that no quota refuses."""
LEASE_MS: Final = 30_000
"""How long a request can keep its session from being ended."""

OPEN_SESSION: Final = changing(lua(__package__, "open_session", ALWAYS_OPENED=ALWAYS_OPENED), charges=True)
OPEN_NODE_SESSION: Final = changing(
    lua(__package__, "open_node_session", ALWAYS_OPENED=ALWAYS_OPENED), charges=True
)
END_SESSION: Final = removing(
    lua(__package__, "end_session", ENDED_KEY_TTL_MS=ENDED_KEY_TTL_MS),
    announces={RecordType.KEY_ENDED},
    charges=True,
)
UNLIST_SESSIONS: Final = removing(lua(__package__, "unlist_sessions"))
LEASE_SESSION: Final = changing(lua(__package__, "lease_session", LEASE_MS=LEASE_MS))
DELETE_ENDED_SESSIONS: Final = removing(lua(__package__, "delete_ended_sessions"), charges=True)

MAX_SESSIONS: Final = 200
"""Live sessions of one user: one more ends the one that expires first. So one script can delete all sessions
and keys of a user within its limit of elements."""
MAX_DERIVED: Final = 20
"""Live sessions that are derived from one login. One more ends the one of them that expires first."""
MAX_ALL_DERIVED: Final = 60
"""Live derived sessions of all logins of a user. They count in `MAX_SESSIONS`, and replace no session of a
login."""
MAX_NODE_SESSIONS: Final = 20
"""Live sessions of one device."""
PAGE: Final = 50
"""Sessions of one page of `pages`."""
FORGOTTEN_AFTER_MS: Final = 60_000
"""How long a session must be over, by this node's clock, before it leaves the index: another clock may be
slow."""
DELETED_PER_SCRIPT: Final = 50
"""Records that one script deletes: each is ten elements."""


class EndedSessions:
    """Keeps at most `limit` ended sessions of each user and device; 0: all, for 30 days."""

    def __init__(self, database: Database, limit: int = 0) -> None:
        self._database = database
        self._limit = limit

    async def delete_oldest(self, slot: ProjectSlot, index: str, count: int | None = None) -> None:
        """Delete the oldest records beyond the limit; `count` is how many there are, if that is known.

        An unreachable Redis is no error for the request that opened or ended a session: the next one deletes
        them."""
        if self._limit and (count is None or count > self._limit):
            with suppress(Unavailable):
                await self._unlist(slot, index, self._limit)

    async def delete_all(self, slot: ProjectSlot, index: str) -> None:
        """Delete the records of a user or device that is deleted. Raises Unavailable."""
        await self._unlist(slot, index, 0)

    async def _unlist(self, slot: ProjectSlot, index: str, spared: int) -> None:
        more = True
        while more:
            count, oldest = await self._database.read_together(
                ("ZCARD", index), ("ZRANGE", index, 0, DELETED_PER_SCRIPT - 1)
            )
            ids = [each.decode() for each in oldest[: max(0, count - spared)]]
            if not ids:
                return
            answer = await self._database.change(
                DELETE_ENDED_SESSIONS, slot, [index, *map(slot.session, ids)], [self._database.now_ms(), *ids]
            )
            require_ok(answer, project=slot.project_id)
            more = count - len(ids) > spared


@dataclass(frozen=True, slots=True)
class _Holder:
    """The user or device of a session (the other id is 0): Redis keys of its record and sessions, and the
    script that opens one."""

    slot: ProjectSlot
    user_id: int
    device_id: int
    record: str
    sessions: str
    ended: str
    script: Script
    limit: int


class Sessions:
    """The sessions of the users of a project, and of its devices (node sessions)."""

    def __init__(self, database: Database, lifetime: Lifetime, max_ended: int = 0) -> None:
        self._database = database
        self._lifetime = lifetime
        self._ended = EndedSessions(database, max_ended)

    async def open(
        self,
        project_id: int,
        user_id: int,
        app_id: str,
        client: ClientInfo,
        *,
        password_hash: str = "",
        authentication_type: str = "Bearer",
        roles: tuple[str, ...] = ("user",),
        lifetime: Lifetime | None = None,
        parent: Session | None = None,
    ) -> tuple[Session, str]:
        """Open a session. Returns it and its key, which is not stored. No other function makes user keys.

        `app_id` is not looked up: the login does that. It may be empty for users of a BYOU project. With
        `password_hash` the session is opened only if that is the hash of the user's password. `lifetime`
        replaces that of the settings. With a `parent` the session is derived: it has the parent's absolute
        end, and ends with it. Raises UnknownRecord without the project, the user or a live parent, and
        Conflict (CONFLICT when the password has changed, TOO_MANY_SESSIONS).
        """
        session = self._new(project_id, app_id, client, authentication_type, roles, lifetime, user_id=user_id)
        if parent is not None:
            session = derived(session, parent)
        return await self._open(session, password_hash)

    async def open_node(
        self,
        project_id: int,
        device_id: int,
        client: ClientInfo,
        *,
        app_id: str = "",
        key_hash: str = "",
        authentication_type: str = "Bearer",
        roles: tuple[str, ...] = ("node",),
        lifetime: Lifetime | None = None,
    ) -> tuple[Session, str]:
        """Open a session of a device: a node session. Its key may do what the device's own key may.

        With `key_hash` (SHA-256, hex) it is opened only if that is the hash of the device's key. It ends with
        the device, and when the device's key is rotated. Raises UnknownRecord without the project or the
        device, and Conflict (CONFLICT) when the key was rotated.
        """
        session = self._new(
            project_id, app_id, client, authentication_type, roles, lifetime, device_id=device_id
        )
        return await self._open(session, key_hash)

    async def get(self, project_id: int, session_id: str) -> Session | None:
        """A session, live or over, as long as its record is kept."""
        if not is_session_id(session_id):
            return None
        return session_of(project_id, session_id, await self._record(project_id, session_id))

    async def of_token(self, token: str) -> Session | None:
        """The live session of a key; None for any other key."""
        reference = tokens.parse(token)
        if reference is None:
            return None
        key = ProjectSlot(reference.project_id).key(reference.hash)
        session_id = await self._database.read("HGET", key, "session")
        session = await self.get(reference.project_id, session_id.decode()) if session_id else None
        return session if session is not None and self.is_live(session) else None

    async def of_user(self, project_id: int, user_id: int) -> list[Session]:
        """The live sessions of a user, by their expiry."""
        return await self._live_of(project_id, ProjectSlot(project_id).user_sessions(user_id), MAX_SESSIONS)

    async def of_device(self, project_id: int, device_id: int) -> list[Session]:
        """The live node sessions of a device, by their expiry."""
        index = ProjectSlot(project_id).device_sessions(device_id)
        return await self._live_of(project_id, index, MAX_NODE_SESSIONS)

    async def pages(self, project_id: int) -> AsyncIterator[list[Session]]:
        """All live sessions of a project, with node sessions, from the oldest on, at most `PAGE` at a time.

        A session that is live all the time is in exactly one page. Sessions that are over are removed from
        the index.
        """
        slot = ProjectSlot(project_id)
        start, seen = "-inf", set[str]()
        while True:
            # Read the sessions that started in the same ms as the last one again: there may be more of them.
            count = PAGE + len(seen)
            reply = await self._database.read(
                "ZRANGEBYSCORE", slot.sessions, start, "+inf", "WITHSCORES", "LIMIT", 0, count
            )
            words = [word.decode() for word in reply]
            entries = list(zip(words[::2], words[1::2], strict=True))
            unseen = [entry for entry in entries if entry[0] not in seen]
            page = unseen[:PAGE]
            if page and (live := await self._live_or_unlisted(slot, [entry[0] for entry in page])):
                yield live
            if len(entries) < count and len(page) == len(unseen):
                return
            last = page[-1][1]
            seen = {session_id for session_id, score in entries if score == last} - {
                session_id for session_id, _ in unseen[PAGE:]
            }
            start = last

    async def end(self, project_id: int, session_id: str, *, despite_leases: bool = False) -> None:
        """End a live session and those that are derived from it: their keys are invalid when this returns.

        Raises UnknownRecord, and Conflict (SESSION_IN_USE) while a request leases one of them, unless they
        are to end `despite_leases`.
        """
        session = await self.get(project_id, session_id)
        if session is None:
            raise UnknownRecord("session", session_id)
        for _ in range(ATTEMPTS):
            ending = [(session_id, session.key_hash), *await self._derived_from(session)]
            holder = _holder(session)
            if await self._is_ended(holder, ending, despite_leases=despite_leases):
                return
        raise retries_exhausted("session")

    async def end_of_key(self, project_id: int, user_id: int, session_id: str, key_hash: str) -> None:
        """`end` for the session of a user's key: without a read, unless others are derived from it."""
        holder = _user(ProjectSlot(project_id), user_id)
        if not await self._is_ended(holder, [(session_id, key_hash)], despite_leases=False):
            await self.end(project_id, session_id)

    async def end_all(self, project_id: int, user_id: int, except_id: str = "") -> None:
        """End all present sessions of a user, leased or not, except `except_id`.

        A derived session ends with the one that it was derived from, also if it is `except_id`. Sessions of
        logins that happen meanwhile stay.
        """
        for session in await self.of_user(project_id, user_id):
            if session.id != except_id:
                await self._end_if_live(project_id, session.id)

    async def end_all_of_device(self, project_id: int, device_id: int) -> None:
        """End all node sessions of a device. Its index is empty then, so that the device can be deleted."""
        index = ProjectSlot(project_id).device_sessions(device_id)
        for member in await self._database.read("ZRANGE", index, 0, -1):
            await self._remove(ProjectSlot(project_id), index, member.decode())

    @asynccontextmanager
    async def lease(self, project_id: int, session_id: str) -> AsyncIterator[None]:
        """Keep the session of a request from being ended meanwhile, for at most 30 s.

        Other requests may lease it, too. Raises UnknownRecord if it is not live.
        """
        slot, name = ProjectSlot(project_id), secrets.token_hex(8)
        leases = slot.session_leases(session_id)
        answer = await self._database.change(
            LEASE_SESSION, slot, [slot.session(session_id), leases], [name, self._database.now_ms()]
        )
        require_ok(answer, project=project_id, session=session_id)
        try:
            yield
        finally:
            # The lease expires if Redis is unreachable: that must not fail a request that succeeded.
            with suppress(Unavailable):
                await self._database.write("ZREM", leases, name)

    def is_live(self, session: Session) -> bool:
        """Whether it has neither ended nor expired."""
        return session.closed_ms == 0 and session.expires_ms > self._database.now_ms()

    def _new(
        self,
        project_id: int,
        app_id: str,
        client: ClientInfo,
        authentication_type: str,
        roles: tuple[str, ...],
        lifetime: Lifetime | None,
        *,
        user_id: int = 0,
        device_id: int = 0,
    ) -> Session:
        now, expiry = self._database.now_ms(), lifetime or self._lifetime
        ends = now + expiry.absolute_ms if expiry.absolute_ms else 0
        expires = min(now + expiry.slides_ms, ends or now + expiry.slides_ms)
        return Session(
            secrets.token_hex(ID_BYTES), project_id, user_id,
            checks.app_id(app_id) if app_id else "",
            now, expires, now,
            checks.header(client.address, checks.MAX_ADDRESS),
            checks.header(client.user_agent, checks.MAX_USER_AGENT),
            authentication_type, version=1, host=checks.header(client.host, checks.MAX_HOST),
            node=client.node, roles=roles, device_id=device_id, slides_ms=expiry.slides_ms, ends_ms=ends,
        )  # fmt: skip

    async def _open(self, session: Session, proof: str) -> tuple[Session, str]:
        """`proof` is the hash of the password or key of the login; it is not checked if it is empty."""
        holder = _holder(session)
        token, reference = tokens.mint(session.project_id)
        session = replace(session, key_hash=reference.hash)
        for _ in range(ATTEMPTS):
            answer = await self._store(session, holder, proof)
            if answer[0] == "moved":
                raise Conflict("CONFLICT", "the password or key has changed")
            if answer[0] != "full":
                identifiers = {"user": session.user_id, "device": session.device_id}
                require_ok(answer, project=session.project_id, **identifiers)
                await self._ended.delete_oldest(ProjectSlot(session.project_id), holder.ended)
                return session, token
            await self._remove(ProjectSlot(session.project_id), holder.sessions, answer[1], session.user_id)
        raise retries_exhausted("user" if session.user_id else "device")

    async def _store(self, session: Session, holder: _Holder, proof: str) -> list[str]:
        slot = ProjectSlot(session.project_id)
        return await self._database.change(
            holder.script,
            slot,
            [
                holder.record, holder.sessions, slot.session(session.id), slot.key(session.key_hash),
                slot.sessions, slot.user_derived(session.user_id),
                slot.session(session.ancestors[-1] if session.ancestors else "none"), holder.ended,
            ],
            [
                session.user_id or session.device_id, session.id, session.key_hash, session.started_ms,
                session.expires_ms, session.expires_ms + ENDED_SESSION_TTL_MS, holder.limit, proof,
                " ".join(session.ancestors), MAX_DERIVED, MAX_ALL_DERIVED, *record_fields(session),
            ],
        )  # fmt: skip

    async def _derived_from(self, session: Session) -> list[tuple[str, str]]:
        """Ids and key hashes of the sessions that are derived from a session."""
        if not session.user_id:
            return []
        slot = ProjectSlot(session.project_id)
        forest = await self._database.read_hash(slot.user_derived(session.user_id))
        ids = [each for each, ancestors in forest.items() if session.id in ancestors.split()]
        keys = await self._database.read_together(*(("HGET", slot.session(each), "key") for each in ids))
        return [(each, (key or b"").decode()) for each, key in zip(ids, keys, strict=True)]

    async def _is_ended(
        self, holder: _Holder, ending: Sequence[tuple[str, str]], *, despite_leases: bool
    ) -> bool:
        """End a session and all that are derived from it, by ids and key hashes; False: there are others."""
        slot, now = holder.slot, self._database.now_ms()
        user_id, device_id = holder.user_id, holder.device_id
        names = [
            name
            for each, key in ending
            for name in (slot.session(each), slot.key(key or "none"), slot.session_leases(each))
        ]
        answer = await self._database.change(
            END_SESSION,
            slot,
            [
                holder.sessions, slot.user_homes(user_id), slot.user_ended_keys(user_id), slot.sessions,
                slot.user_derived(user_id), *names, holder.ended,
            ],
            [
                now, now + ENDED_SESSION_TTL_MS, user_id, device_id, int(despite_leases),
                *(page for each in ending for page in each),
            ],
        )  # fmt: skip
        if answer[0] == "moved":
            return False
        require_ok(answer, project=slot.project_id, session=ending[0][0])
        await self._ended.delete_oldest(slot, holder.ended, int(answer[1]))
        return True

    async def _remove(self, slot: ProjectSlot, index: str, session_id: str, user_id: int = 0) -> None:
        if not await self._end_if_live(slot.project_id, session_id):
            # Over already, or a member of the index that lost its record.
            await self._unlist(slot, [session_id], index, slot.user_derived(user_id))

    async def _end_if_live(self, project_id: int, session_id: str) -> bool:
        try:
            await self.end(project_id, session_id, despite_leases=True)
        except UnknownRecord:
            return False
        return True

    async def _live_of(self, project_id: int, index: str, limit: int) -> list[Session]:
        now = self._database.now_ms()
        reply = await self._database.read("ZRANGEBYSCORE", index, f"({now}", "+inf", "LIMIT", 0, limit)
        found = await self._read(ProjectSlot(project_id), [member.decode() for member in reply])
        return [session for session in found if session is not None and self.is_live(session)]

    async def _live_or_unlisted(self, slot: ProjectSlot, ids: Sequence[str]) -> list[Session]:
        """Those of the sessions that are live; the others leave the project's index."""
        found = await self._read(slot, ids)
        past = self._database.now_ms() - FORGOTTEN_AFTER_MS
        over = [
            session_id
            for session_id, session in zip(ids, found, strict=True)
            if session is None or session.closed_ms or session.expires_ms < past
        ]
        if over:
            await self._unlist(slot, over)
        return [session for session in found if session is not None and self.is_live(session)]

    async def _unlist(self, slot: ProjectSlot, ids: Sequence[str], *indexes: str) -> None:
        answer = await self._database.change(UNLIST_SESSIONS, slot, [slot.sessions, *indexes], ids)
        require_ok(answer, project=slot.project_id)

    async def _read(self, slot: ProjectSlot, ids: Sequence[str]) -> list[Session | None]:
        records = await self._database.read_hashes([slot.session(session_id) for session_id in ids])
        return [
            session_of(slot.project_id, session_id, record)
            for session_id, record in zip(ids, records, strict=True)
        ]

    async def _record(self, project_id: int, session_id: str) -> dict[str, str]:
        return await self._database.read_hash(ProjectSlot(project_id).session(session_id))


def _holder(session: Session) -> _Holder:
    slot, device = ProjectSlot(session.project_id), session.device_id
    if session.user_id:
        return _user(slot, session.user_id)
    sessions, ended = slot.device_sessions(device), slot.device_ended_sessions(device)
    return _Holder(
        slot, 0, device, slot.device(device), sessions, ended, OPEN_NODE_SESSION, MAX_NODE_SESSIONS
    )


def _user(slot: ProjectSlot, user_id: int) -> _Holder:
    sessions, ended = slot.user_sessions(user_id), slot.user_ended_sessions(user_id)
    return _Holder(slot, user_id, 0, slot.user(user_id), sessions, ended, OPEN_SESSION, MAX_SESSIONS)
