"""Sessions Controller (spec 002): the session API for browsers, which keep their session in a cookie.

It is at `/session…` and at `/api/session…`, a view of the same sessions as the other APIs.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid5

from homewire.auth.models import Principal, PrincipalKind
from homewire.compat.controller_logins import (
    LoginRequest,
    LoginWithTokenRequest,
    NodeLoginRequest,
    SessionInfoResponse,
    info,
    log_in,
    log_in_node,
    log_in_with_token,
    logins_of,
    node_info,
)
from homewire.errors import NotFound, Unauthenticated, UnknownRecord
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.operation import Access, Call, NoQuery, Operation, WithCookie
from homewire.rest.shapes import SESSIONS
from homewire.users.models import User

USERS: Final = UUID("27fbab6b-a565-4df9-8000-f9814bb02008")
"""The namespace of users' guids. It never changes."""


class AppUserDetails(models.Answer):
    """The same of a user, and what the user is known by, which never changes."""

    guid: str
    last_successful_login: int
    last_failed_login: int
    ui_time_zone: str


async def get_status(context: RestContext, _call: Call[NoQuery, None]) -> None:
    """Check that Redis answers. Raises Unavailable."""
    await context.store.ping()


async def log_out(context: RestContext, call: Call[NoQuery, None]) -> WithCookie:
    """End the session of the key."""
    caller = await _logged_in(context, call)
    try:
        await context.store.sessions.end(caller.project_id, caller.session_id)
    except UnknownRecord as error:
        # Another request ended it after the key was checked.
        raise Unauthenticated from error
    return WithCookie(None, None)


async def get_session_user(context: RestContext, call: Call[NoQuery, None]) -> SessionInfoResponse:
    """The session of the key."""
    caller = await _logged_in(context, call)
    if caller.kind is PrincipalKind.DEVICE:
        return node_info(await logins_of(context, caller.project_id, caller.id))
    return info(await _user(context, caller))


async def get_user_details(context: RestContext, call: Call[NoQuery, None]) -> AppUserDetails:
    """The user of the session. Raises NotFound for a node session, which has none."""
    caller = await _logged_in(context, call)
    if caller.kind is not PrincipalKind.USER:
        raise NotFound
    user = await _user(context, caller)
    return AppUserDetails(
        guid=guid_of(user),
        last_successful_login=user.last_login_ms,
        last_failed_login=user.last_failed_login_ms,
        ui_time_zone=user.ui_time_zone,
    )


def guid_of(user: User) -> str:
    """The guid of a user. It is derived from ids that never change, and so not stored."""
    return str(uuid5(USERS, f"{user.project_id}/{user.id}"))


async def _logged_in(context: RestContext, call: Call[NoQuery, None]) -> Principal:
    """The caller, with the key of a session. Raises Unauthenticated for any other key."""
    caller = await context.authenticate(call.request)
    if not caller.session_id:
        raise Unauthenticated
    return caller


async def _user(context: RestContext, caller: Principal) -> User:
    user = await context.store.users.get(caller.project_id, caller.id)
    if user is None:
        raise Unauthenticated
    return user


_BAD_LOGIN: Final = frozenset({400, 401, 403, 429})
_BAD_SESSION: Final = frozenset({401})
_SESSION: Final = Access(user=True, device=True, by_handler=True)


def _operations(prefix: str, name: str) -> tuple[Operation, ...]:
    """All of them under a path; `name` ends their names."""
    return (
        Operation(
            name=f"getSessionStatus{name}",
            method="GET",
            path=prefix,
            tag="Sessions Controller",
            summary="Check whether the service is available",
            description="204 for every caller. A key is ignored.",
            source="spec 002, GET /session",
            access=Access(anonymous=True, by_handler=True),
            handler=get_status,
            success=204,
            errors=frozenset(),
            shape=SESSIONS,
        ),
        Operation(
            name=f"logIn{name}",
            method="POST",
            path=f"{prefix}/login",
            tag="Sessions Controller",
            summary="Log in with e-mail address and password",
            description="The answer sets the cookie of a new session. The project is that of the host "
            "(project_hosts), else default_project, else the only one; users of a project without e-mail "
            "accounts log in with a token.",
            source="spec 002, POST /session/login",
            access=Access(anonymous=True, by_handler=True),
            handler=log_in,
            body=LoginRequest,
            success=201,
            answer=SessionInfoResponse,
            errors=_BAD_LOGIN,
            shape=SESSIONS,
            sets_cookie=True,
        ),
        Operation(
            name=f"logInWithToken{name}",
            method="POST",
            path=f"{prefix}/login-with-token",
            tag="Sessions Controller",
            summary="Log in with a login token or a user's key",
            description="The answer sets the cookie of a new session. A login token can be used once. A key "
            "stays valid: the new session has the absolute end of the key's own session, and ends with it. "
            "From one login at most 20 sessions are derived: one more ends the one that expires first. The "
            "project is that of the token. If the host has a project, it must be the same.",
            source="spec 002, POST /session/login-with-token",
            access=Access(anonymous=True, by_handler=True),
            handler=log_in_with_token,
            body=LoginWithTokenRequest,
            success=201,
            answer=SessionInfoResponse,
            errors=_BAD_LOGIN,
            shape=SESSIONS,
            sets_cookie=True,
        ),
        Operation(
            name=f"logInNode{name}",
            method="POST",
            path=f"{prefix}/node/login",
            tag="Sessions Controller",
            summary="Log in as a device",
            description="With the device's id and its key. The answer sets the cookie of a new session, "
            "which has the permissions of the key, and ends with it.",
            source="spec 002, POST /session/node/login",
            access=Access(anonymous=True, by_handler=True),
            handler=log_in_node,
            body=NodeLoginRequest,
            success=201,
            answer=SessionInfoResponse,
            errors=_BAD_LOGIN,
            shape=SESSIONS,
            sets_cookie=True,
        ),
        Operation(
            name=f"logOut{name}",
            method="POST",
            path=f"{prefix}/logout",
            tag="Sessions Controller",
            summary="End the session",
            description="Its key is invalid, its WebSockets are closed, and the cookie is expired.",
            source="spec 002, POST /session/logout",
            access=_SESSION,
            handler=log_out,
            success=201,
            errors=frozenset({401, 403, 409}),
            shape=SESSIONS,
        ),
        Operation(
            name=f"getSessionUser{name}",
            method="GET",
            path=f"{prefix}/user",
            tag="Sessions Controller",
            summary="Get the session",
            description="The session of a user, or of a device that logged in.",
            source="spec 002, GET /session/user",
            access=_SESSION,
            handler=get_session_user,
            answer=SessionInfoResponse,
            errors=_BAD_SESSION,
            shape=SESSIONS,
        ),
        Operation(
            name=f"getSessionUserDetails{name}",
            method="GET",
            path=f"{prefix}/user/details",
            tag="Sessions Controller",
            summary="Get the user of the session",
            description="The guid is always the same. The session of a device has no user: 404.",
            source="spec 002, GET /session/user/details",
            access=_SESSION,
            handler=get_user_details,
            answer=AppUserDetails,
            errors=_BAD_SESSION | {404},
            shape=SESSIONS,
        ),
    )


OPERATIONS: Final = (*_operations("/session", ""), *_operations("/api/session", "AtApi"))
