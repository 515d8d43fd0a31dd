"""Sessions Controller (spec 002): browsers that keep their session in a cookie, and read of it as JSON.

At `/session…`, and the same at `/api/session…`. A view of our one kind of session, like the others.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid5

import msgspec
from aiohttp import web

from homewire.api import models
from homewire.api.accounts import guess, login_of, window_ms
from homewire.api.context import Api
from homewire.api.login import by_password, opened
from homewire.api.operation import Access, Call, NoQuery, Operation, WithCookie
from homewire.api.project_of import AMBIGUOUS, project_of
from homewire.api.shapes import SESSIONS
from homewire.errors import Conflict, InvalidInput, LoginRefused, NotFound, Unauthenticated, UnknownRecord
from homewire.model import Principal, PrincipalKind, Project, Session, User
from homewire.store import login_tokens, tokens
from homewire.store.node_logins import Logins

APP: Final = "sessions-controller"
"""What sessions have as their app that were begun here."""
COOKIE: Final = "Cookie"
"""Their authentication type."""
USERS: Final = UUID("27fbab6b-a565-4df9-8000-f9814bb02008")
"""The namespace of users' guids: of our own, and for good."""
LARGEST_ID: Final = 16
"""In digits."""


class LoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who somebody says they are: an e-mail address, and its password."""

    login: str
    password: str


class LoginWithTokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A login token, or the key of a user: that of another session."""

    token: str


class NodeLoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A device's id and its key."""

    login: int | str
    password: str


class SessionInfoResponse(models.Answer):
    """What there is to know of a session."""

    last_successful_login: int
    """In ms since 1970, like the next; 0: never."""
    last_failed_login: int
    ui_time_zone: str


class AppUserDetails(models.Answer):
    """The same of a user, and what the user is known by, which never changes."""

    guid: str
    last_successful_login: int
    last_failed_login: int
    ui_time_zone: str


async def get_status(api: Api, _call: Call[NoQuery, None]) -> None:
    """Whether all is well: Redis answers. Raises Unavailable."""
    await api.store.ping()


async def log_in(api: Api, call: Call[NoQuery, LoginRequest]) -> WithCookie:
    """Open a session for somebody who knows their password."""
    project = await project_of(api, call.request)
    user, session, key = await by_password(
        api,
        call.request,
        project,
        call.body.login,
        call.body.password,
        app_id=APP,
        authentication_type=COOKIE,
    )
    return WithCookie(_info(user, session), key)


async def log_in_with_token(api: Api, call: Call[NoQuery, LoginWithTokenRequest]) -> WithCookie:
    """Open a session for the user of a login token, which is spent, or of a key, which stays."""
    token = login_tokens.parse(call.body.token)
    key = tokens.parse(call.body.token)
    named = token or key
    if named is None:
        raise _wrong_token()
    project = await _project_with(api, call.request, named.project_id, _wrong_token())
    counted = guess(api, call.request)
    await api.store.attempts.take(project.id, counted, window_ms(api))
    proven = await _redeemed(api, token) if token else await _speaks_for(api, call.body.token)
    if proven is None:
        raise _wrong_token()
    await api.store.attempts.give_back(project.id, counted)
    user_id, password_hash = proven
    try:
        session, made = await opened(
            api,
            call.request,
            project.id,
            user_id,
            APP,
            authentication_type=COOKIE,
            password_hash=password_hash,
        )
    except (Conflict, UnknownRecord) as error:
        # The password has changed, or the user was deleted, since it was right.
        raise _wrong_token() from error
    user = await api.store.users.get(project.id, user_id)
    if user is None:
        raise _wrong_token()
    return WithCookie(_info(user, session), made)


async def log_in_node(api: Api, call: Call[NoQuery, NodeLoginRequest]) -> WithCookie:
    """Open a session for a device that knows its key: a node session."""
    login, password = _device_id(call.body.login), call.body.password
    key = tokens.parse(password)
    if key is None or login is None:
        raise _wrong_key()
    project = await _project_with(api, call.request, key.project_id, _wrong_key())
    counted = guess(api, call.request, f"device {login}")
    await api.store.attempts.take(project.id, counted, window_ms(api))
    caller = await api.store.principals.lookup(password)
    if caller is None or caller.kind is not PrincipalKind.DEVICE or caller.id != login or caller.session_id:
        await api.store.node_logins.note_failed(project.id, login)
        raise _wrong_key()
    await api.store.attempts.give_back(project.id, counted)
    try:
        _, made = await api.store.sessions.open_node(
            project.id,
            login,
            login_of(api, call.request),
            app_id=APP,
            key_hash=key.hash,
            authentication_type=COOKIE,
        )
    except (Conflict, UnknownRecord) as error:
        # Rotated, or the device deleted, since it was right.
        raise _wrong_key() from error
    return WithCookie(_node_info(await _logins(api, project.id, login)), made)


async def log_out(api: Api, call: Call[NoQuery, None]) -> WithCookie:
    """End the session of the key that came along."""
    caller = await _logged_in(api, call)
    try:
        await api.store.sessions.end(caller.project_id, caller.session_id)
    except UnknownRecord as error:
        # Ended by somebody else since the key was looked at.
        raise Unauthenticated from error
    return WithCookie(None, None)


async def get_session_user(api: Api, call: Call[NoQuery, None]) -> SessionInfoResponse:
    """About the session of the key that came along."""
    caller = await _logged_in(api, call)
    if caller.kind is PrincipalKind.DEVICE:
        return _node_info(await _logins(api, caller.project_id, caller.id))
    return _info(await _user(api, caller))


async def get_user_details(api: Api, call: Call[NoQuery, None]) -> AppUserDetails:
    """About the user whose session it is. Raises NotFound for a node session, which has none."""
    caller = await _logged_in(api, call)
    if caller.kind is not PrincipalKind.USER:
        raise NotFound
    user = await _user(api, caller)
    return AppUserDetails(
        guid=guid_of(user),
        last_successful_login=user.last_login_ms,
        last_failed_login=user.last_failed_login_ms,
        ui_time_zone=user.ui_time_zone,
    )


def guid_of(user: User) -> str:
    """What a user is known by here: made from what never changes, so it is stored nowhere."""
    return str(uuid5(USERS, f"{user.project_id}/{user.id}"))


async def _logged_in(api: Api, call: Call[NoQuery, None]) -> Principal:
    """Who calls, with the key of a session. Raises Unauthenticated: any other key is not logged in."""
    caller = await api.authenticate(call.request)
    if not caller.session_id:
        raise Unauthenticated
    return caller


async def _user(api: Api, caller: Principal) -> User:
    user = await api.store.users.get(caller.project_id, caller.id)
    if user is None:
        raise Unauthenticated
    return user


async def _logins(api: Api, project_id: int, device_id: int) -> Logins:
    logins = await api.store.node_logins.of(project_id, device_id)
    if logins is None:
        raise Unauthenticated
    return logins


async def _project_with(api: Api, request: web.Request, project_id: int, refusal: LoginRefused) -> Project:
    """The project of a token that names one: that of the host, or where nothing else tells it the token's.

    Raises `refusal` for the token of another project, and InvalidInput (UNKNOWN_PROJECT).
    """
    try:
        project = await project_of(api, request)
    except InvalidInput as error:
        if error.reason != AMBIGUOUS:
            raise
        named = await api.store.projects.get(project_id)
        if named is None or named.disabled:
            raise refusal from error
        return named
    if project.id != project_id:
        raise refusal
    return project


async def _redeemed(api: Api, token: login_tokens.LoginToken) -> tuple[int, str] | None:
    """Whose token it is, and nothing else that has to hold; None: it is not good."""
    return (token.user_id, "") if await api.store.login_tokens.redeem(token) else None


async def _speaks_for(api: Api, key: str) -> tuple[int, str] | None:
    """Whose key it is, and the hash of a password that must not change meanwhile; None: no user's."""
    claimed = await api.store.sessions.of_token(key)
    # Read before the key is found good: who resets a password ends all sessions first.
    password_hash = ""
    if claimed is not None and claimed.user_id:
        password_hash = await api.store.users.stored_password(claimed.project_id, claimed.user_id)
    caller = await api.store.principals.lookup(key)
    if caller is None or caller.kind is not PrincipalKind.USER:
        return None
    return caller.id, password_hash


def _device_id(login: int | str) -> int | None:
    text = str(login)
    if not text.isascii() or not text.isdigit() or len(text) > LARGEST_ID:
        return None
    return int(text)


def _info(user: User, opened: Session | None = None) -> SessionInfoResponse:
    """`opened` may be later than what is known of the user."""
    return SessionInfoResponse(
        last_successful_login=max(user.last_login_ms, opened.started_ms if opened else 0),
        last_failed_login=user.last_failed_login_ms,
        ui_time_zone=user.ui_time_zone,
    )


def _node_info(logins: Logins) -> SessionInfoResponse:
    return SessionInfoResponse(
        last_successful_login=logins.last_ms, last_failed_login=logins.last_failed_ms, ui_time_zone="UTC"
    )


def _wrong_token() -> LoginRefused:
    return LoginRefused("INVALID_TOKEN", field="token", problem="is unknown, used or too old")


def _wrong_key() -> LoginRefused:
    return LoginRefused(problem="device id or key is wrong")


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
            summary="Ask whether the service can be used",
            description="204 for everybody. A key is not looked at.",
            source="spec 002, GET /session",
            access=Access(nobody=True, by_handler=True),
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
            access=Access(nobody=True, by_handler=True),
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
            description="The answer sets the cookie of a new session. A login token is spent by it; a key "
            "stays what it is. The project is that of the token, and must be that of the host if that tells "
            "one.",
            source="spec 002, POST /session/login-with-token",
            access=Access(nobody=True, by_handler=True),
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
            "which may do what the key may, and ends with it.",
            source="spec 002, POST /session/node/login",
            access=Access(nobody=True, by_handler=True),
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
            description="Its key is dead, its WebSockets are closed, and the cookie is expired.",
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
            summary="Read about the session",
            description="Of a user or of a device that logged in.",
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
            summary="Read about the user whose session it is",
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
