"""The session that the caller's key is (spec 000), and the user's others. Its WebSocket is the gateway's."""

from __future__ import annotations

from typing import Final

import msgspec

from homewire.errors import NotFound
from homewire.rest import models
from homewire.rest.context import Api
from homewire.rest.operation import Access, Call, NoQuery, Operation
from homewire.timestamps import timestamp


class SessionsQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """Which of the caller's sessions end."""

    current: bool = False
    """Whether the session that the key is ends, too."""


_STATUSES: Final = frozenset({401, 403, 404})


async def get_user_session(api: Api, call: Call[NoQuery, None]) -> models.UserSession:
    """The session. It may have ended since the key was looked at."""
    session = await api.store.sessions.get(call.project_id, call.principal.session_id)
    if session is None or not api.store.sessions.is_live(session):
        raise NotFound
    return models.UserSession(
        user_id=session.user_id,
        app_id=session.app_id,
        project_id=session.project_id,
        creation_time=timestamp(session.started_ms),
    )


async def terminate_user_session(api: Api, call: Call[NoQuery, None]) -> None:
    """End it, with its key and everything that is connected with that."""
    await api.store.sessions.end(call.project_id, call.principal.session_id)


async def end_user_sessions(api: Api, call: Call[SessionsQuery, None]) -> None:
    """End the caller's other sessions, or all of them."""
    own = "" if call.query.current else call.principal.session_id
    await api.store.sessions.end_all(call.project_id, call.principal.id, except_id=own)


OPERATIONS: Final = (
    Operation(
        name="getUserSession",
        method="GET",
        path="/userSession",
        tag="User session",
        summary="Read the session that the key is",
        description="404 only if the session ended while it was being looked at; a key that is dead is 401. "
        "The key of a device is 403, and so is that of a session which a device opened.",
        source="spec 000, Get user session info",
        access=Access(user=True),
        handler=get_user_session,
        answer=models.UserSession,
        errors=_STATUSES,
    ),
    Operation(
        name="terminateUserSession",
        method="DELETE",
        path="/userSession",
        tag="User session",
        summary="End the session, and the key with it",
        description="From the answer on the key is good for nothing here, and milliseconds later on every "
        "other node; every WebSocket that was opened with it is closed (4502). 409 SESSION_IN_USE while the "
        "account is being deleted with that key.",
        source="spec 000, Terminate user session",
        access=Access(user=True),
        handler=terminate_user_session,
        success=204,
        errors=_STATUSES | {409},
    ),
    Operation(
        name="endUserSessions",
        method="DELETE",
        path="/userSessions",
        tag="User session",
        summary="End all other sessions of the user",
        description="With current=true that of the key, too. Their keys are refused from the answer on, and "
        "their WebSockets are closed (4502). A session that was made with the key of another one "
        "(POST /session/login-with-token) ends with that, also if it is the caller's. What is answered 503 "
        "may be done in part: call it again.",
        source="homewire's own",
        access=Access(user=True),
        handler=end_user_sessions,
        query=SessionsQuery,
        success=204,
        errors=frozenset({401, 403}),
    ),
)
