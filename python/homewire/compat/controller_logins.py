"""Logins of the Sessions Controller (spec 002): with a password, with a token, or as a device.

Which project a request is for that names none: of the host it came to, or the only one.

The session APIs of other makers (spec 002, 003, 004) know no projects.
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import hdrs, web

from homewire.auth import tokens
from homewire.auth.models import PrincipalKind
from homewire.errors import Conflict, InvalidInput, LoginRefused, Unauthenticated, UnknownRecord
from homewire.hosts import projects_by_host, without_port
from homewire.logins.api import log_in_by_password, open_session
from homewire.logins.attempt_limits import limited_attempt, login_attempt, token_attempts
from homewire.logins.store import Logins, LoginToken, parse_login_token
from homewire.projects.models import Project
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.operation import Call, NoQuery, WithCookie
from homewire.sessions.models import Session
from homewire.users.accounts import client_info
from homewire.users.models import User

APP: Final = "sessions-controller"
"""The app of sessions that are opened here."""
COOKIE: Final = "Cookie"
"""Their authentication type."""
ID_DIGITS: Final = 16
"""Digits of the largest id."""


class LoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An e-mail address and a password."""

    login: str
    password: str


class LoginWithTokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A login token, or the key of a user's session."""

    token: str


class NodeLoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A device's id and its key."""

    login: int | str
    password: str


class SessionInfoResponse(models.Answer):
    """The session of the caller."""

    last_successful_login: int
    """In ms since 1970, like the next; 0: never."""
    last_failed_login: int
    ui_time_zone: str


async def log_in(context: RestContext, call: Call[NoQuery, LoginRequest]) -> WithCookie:
    """Open a session for a user by e-mail address and password."""
    project = await resolve_project(context, call.request)
    user, session, key = await log_in_by_password(
        context,
        call.request,
        project,
        call.body.login,
        call.body.password,
        app_id=APP,
        authentication_type=COOKIE,
    )
    return WithCookie(info(user, session), key)


async def log_in_with_token(context: RestContext, call: Call[NoQuery, LoginWithTokenRequest]) -> WithCookie:
    """Open a session for the user of a login token, which is spent, or of a key, which stays.

    The session of a key lives no longer than that key's own. Raises Conflict (TOO_MANY_SESSIONS).
    """
    token = parse_login_token(call.body.token)
    key = tokens.parse(call.body.token)
    named = token or key
    if named is None:
        raise _wrong_token()
    project = await _project_with(context, call.request, named.project_id, _wrong_token())
    async with limited_attempt(context, project.id, token_attempts(context, call.request)) as attempt:
        parent = None if token else await _session_of(context, call.body.token)
        user_id = await _redeemed(context, token) if token else parent and parent.user_id
        if not user_id:
            raise attempt.failed(_wrong_token())
    try:
        session, made = await open_session(
            context,
            call.request,
            project.id,
            user_id,
            APP,
            authentication_type=COOKIE,
            parent=parent,
        )
    except UnknownRecord as error:
        # The key's session ended, or the user was deleted, after the check.
        raise _wrong_token() from error
    user = await context.store.users.get(project.id, user_id)
    if user is None:
        raise _wrong_token()
    return WithCookie(info(user, session), made)


async def log_in_node(context: RestContext, call: Call[NoQuery, NodeLoginRequest]) -> WithCookie:
    """Open a session for a device by its id and key: a node session."""
    login, password = _device_id(call.body.login), call.body.password
    key = tokens.parse(password)
    if key is None or login is None:
        raise _wrong_key()
    project = await _project_with(context, call.request, key.project_id, _wrong_key())
    async with login_attempt(context, call.request, project.id, f"device {login}") as attempt:
        caller = await context.store.principals.lookup(password)
        if (
            caller is None
            or caller.kind is not PrincipalKind.DEVICE
            or caller.id != login
            or caller.session_id
        ):
            await context.store.node_logins.note_failed(project.id, login)
            raise attempt.failed(_wrong_key())
    try:
        _, made = await context.store.sessions.open_node(
            project.id,
            login,
            client_info(context, call.request),
            app_id=APP,
            key_hash=key.hash,
            authentication_type=COOKIE,
        )
    except (Conflict, UnknownRecord) as error:
        # The key was rotated, or the device deleted, after the check.
        raise _wrong_key() from error
    return WithCookie(node_info(await logins_of(context, project.id, login)), made)


def info(user: User, opened: Session | None = None) -> SessionInfoResponse:
    """The logins of a user, whose record may be older than the session that was `opened`."""
    return SessionInfoResponse(
        last_successful_login=max(user.last_login_ms, opened.started_ms if opened else 0),
        last_failed_login=user.last_failed_login_ms,
        ui_time_zone=user.ui_time_zone,
    )


def node_info(logins: Logins) -> SessionInfoResponse:
    """The logins of a device, which has no time zone."""
    return SessionInfoResponse(
        last_successful_login=logins.last_ms, last_failed_login=logins.last_failed_ms, ui_time_zone="UTC"
    )


async def logins_of(context: RestContext, project_id: int, device_id: int) -> Logins:
    """The logins of a device. Raises Unauthenticated if it was deleted."""
    logins = await context.store.node_logins.of(project_id, device_id)
    if logins is None:
        raise Unauthenticated
    return logins


async def _project_with(
    context: RestContext, request: web.Request, project_id: int, refusal: LoginRefused
) -> Project:
    """The project of a token that names one: that of the host, or where nothing else tells it the token's.

    Raises `refusal` for the token of another project, and InvalidInput (UNKNOWN_PROJECT).
    """
    try:
        project = await resolve_project(context, request)
    except InvalidInput as error:
        if error.reason != AMBIGUOUS:
            raise
        named = await context.store.projects.get(project_id)
        if named is None or named.disabled:
            raise refusal from error
        return named
    if project.id != project_id:
        raise refusal
    return project


async def _redeemed(context: RestContext, token: LoginToken) -> int | None:
    """Spend a token. Returns its user; None if it is invalid."""
    if await context.store.login_tokens.redeem(token):
        return token.user_id
    await context.store.users.note_failed_login(token.project_id, token.user_id)
    return None


async def _session_of(context: RestContext, key: str) -> Session | None:
    """The live session of a user's key; None for any other key, or in a disabled project."""
    claimed = await context.store.sessions.of_token(key)
    if claimed is None or not claimed.user_id or await context.store.principals.lookup(key) is None:
        return None
    return claimed


def _device_id(login: int | str) -> int | None:
    text = str(login)
    if not text.isascii() or not text.isdigit() or len(text) > ID_DIGITS:
        return None
    return int(text)


def _wrong_token() -> LoginRefused:
    return LoginRefused("INVALID_TOKEN", field="token", problem="is unknown, used or expired")


def _wrong_key() -> LoginRefused:
    return LoginRefused(problem="device id or key is wrong")


AMBIGUOUS: Final = "AMBIGUOUS_PROJECT"
UNKNOWN: Final = "UNKNOWN_PROJECT"


async def resolve_project(context: RestContext, request: web.Request) -> Project:
    """The project of the request's Host in the setting `project_hosts`, else `default_project`, else the
    only one that there is.

    Raises InvalidInput: AMBIGUOUS_PROJECT if nothing decides, UNKNOWN_PROJECT if what decides names a
    project that does not exist or is disabled.
    """
    project_id = _of_host(context, request.headers.get(hdrs.HOST, "")) or context.settings.default_project
    if project_id is None:
        project_id = await context.store.projects.only()
        if project_id is None:
            raise InvalidInput(
                "Host",
                "does not tell the project: that needs the setting project_hosts or default_project",
                reason=AMBIGUOUS,
            )
    project = await context.store.projects.get(project_id)
    if project is None or project.disabled:
        raise InvalidInput("Host", "stands for a project that does not exist", reason=UNKNOWN)
    return project


def _of_host(context: RestContext, host: str) -> int | None:
    """The project of the host with its port, else without."""
    named = host.strip().lower()
    table = projects_by_host(context.settings.project_hosts)
    return table.get(named) or table.get(without_port(named))
