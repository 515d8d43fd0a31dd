"""The session of the caller's key (spec 000), and the user's other sessions."""

from __future__ import annotations

from typing import Final

import msgspec

from homewire.auth.authenticator import Credential
from homewire.errors import NotFound
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.operation import Access, Call, NoQuery, Operation
from homewire.timestamps import timestamp


class SessionsQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """Selects which of the caller's sessions end."""

    current: bool = False
    """Whether the session of the key ends, too."""


_STATUSES: Final = frozenset({401, 403, 404})


async def get_user_session(context: RestContext, call: Call[NoQuery, None]) -> models.UserSession:
    """The session of the key. It may have ended after the key was checked."""
    session = await context.store.sessions.get(call.project_id, call.principal.session_id)
    if session is None or not context.store.sessions.is_live(session):
        raise NotFound
    return models.UserSession(
        user_id=session.user_id,
        app_id=session.app_id,
        project_id=session.project_id,
        creation_time=timestamp(session.started_ms),
    )


async def terminate_user_session(context: RestContext, call: Call[NoQuery, None]) -> None:
    """End the session of the key, with all its connections."""
    reference = Credential.of(call.request).reference
    # The key was authenticated, so it has one.
    key_hash = reference.hash if reference else ""
    caller = call.principal
    await context.store.sessions.end_of_key(caller.project_id, caller.id, caller.session_id, key_hash)


async def end_user_sessions(context: RestContext, call: Call[SessionsQuery, None]) -> None:
    """End the caller's other sessions, or all of them."""
    own = "" if call.query.current else call.principal.session_id
    await context.store.sessions.end_all(call.project_id, call.principal.id, except_id=own)


OPERATIONS: Final = (
    Operation(
        name="getUserSession",
        method="GET",
        path="/userSession",
        tag="User session",
        summary="Get the session of the key",
        description="404 only if the session ended during the request; an invalid key is 401. The key of a "
        "device, or of a session that a device opened, is 403.",
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
        summary="End the session of the key",
        description="From the answer on the key is invalid on this node, and some milliseconds later on "
        "every other node. All WebSockets of the key are closed (4502). 409 SESSION_IN_USE while a request "
        "with the key deletes the account.",
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
        description="With current=true the session of the key ends, too. The keys are invalid from the "
        "answer on, and their WebSockets are closed (4502). A session that was opened with the key of "
        "another one (POST /session/login-with-token) ends with it, also if it is the caller's. After an "
        "answer of 503 some of the sessions may have ended: repeat the request.",
        source="homewire's own",
        access=Access(user=True),
        handler=end_user_sessions,
        query=SessionsQuery,
        success=204,
        errors=frozenset({401, 403}),
    ),
)
