"""Logins: the principal of a key, sessions for users, and login tokens (spec 001, *Authentication*).

Login tokens are for a project's own server (data models, *Sessions*). Every session API opens its sessions
with the functions of this module. A login always opens a new session with a new key; a key or cookie of the
request is ignored.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from homewire.audit import note
from homewire.auth.models import PrincipalKind
from homewire.errors import Conflict, InvalidInput, LoginRefused, Unauthenticated, UnknownRecord
from homewire.logins.attempt_limits import login_attempt
from homewire.projects.models import AccountSystem, KeyScope, Project
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.decoding import WholeObject
from homewire.rest.operation import Access, BodyKind, Call, NoQuery, Operation
from homewire.sessions.models import Session
from homewire.store import checks
from homewire.timestamps import milliseconds, timestamp
from homewire.users.accounts import (
    client_info,
    open_project,
    reject_other_account_systems,
    require_byou_key,
    required,
)
from homewire.users.models import User


class Credentials(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Authenticate a User*. The account system of the project decides which members it needs."""

    project_id: models.Id
    app_id: str | None = None
    phone_number: str | None = None
    code: str | None = None
    email: str | None = None
    password: str | None = None
    user_id: models.IdOrZero | None = None


async def get_auth(context: RestContext, call: Call[NoQuery, None]) -> models.AuthenticationInfo:
    """The principal of the key; `nobody` without a valid key."""
    try:
        caller = await context.authenticate(call.request)
    except Unauthenticated:
        return models.AuthenticationInfo(type="nobody")
    info = models.AuthenticationInfo(type=caller.kind.value, project_id=caller.project_id)
    if caller.expires_ms:
        info.expiration_time = timestamp(caller.expires_ms)
    match caller.kind:
        case PrincipalKind.USER:
            info.user_id, info.app_id = caller.id, caller.name or None
        case PrincipalKind.DEVICE:
            info.device_id = caller.id
        case PrincipalKind.PROJECT_KEY:
            info.project_key_name = caller.name
    return info


async def authenticate_user(
    context: RestContext, call: Call[NoQuery, Credentials]
) -> models.ClientAuthentication:
    """Open a session for a user who authenticates as the account system demands."""
    project = await open_project(context, call.body.project_id)
    reject_other_account_systems(call.body, project.accounts)
    match project.accounts:
        case AccountSystem.EMAIL:
            return await _by_password(context, call, project)
        case AccountSystem.PHONE:
            return await _by_code(context, call, project)
        case AccountSystem.BYOU:
            return await _by_project_key(context, call, project)


async def _by_password(
    context: RestContext, call: Call[NoQuery, Credentials], project: Project
) -> models.ClientAuthentication:
    app_id = await _app(context, call, project)
    email = checks.email(required("email", call.body.email))
    password = required("password", call.body.password)
    _, session, key = await log_in_by_password(context, call.request, project, email, password, app_id=app_id)
    return _answer(session, key)


async def _by_code(
    context: RestContext, call: Call[NoQuery, Credentials], project: Project
) -> models.ClientAuthentication:
    app_id = await _app(context, call, project)
    phone = checks.phone(required("phoneNumber", call.body.phone_number))
    code = required("code", call.body.code)
    async with login_attempt(context, call.request, project.id, phone) as attempt:
        user = await context.store.users.by_phone(project.id, phone)
        if user is None or not await context.store.verifications.redeem_code(project.id, user.id, code):
            await context.store.users.note_failed_login(project.id, user.id if user else 0)
            raise attempt.failed(
                InvalidInput("code", "is wrong, used or expired", reason="INVALID_AUTH_CODE")
            )
    return await _open_session(context, call, user.id, app_id)


async def _by_project_key(
    context: RestContext, call: Call[NoQuery, Credentials], project: Project
) -> models.ClientAuthentication:
    await require_byou_key(context, call.request, project)
    if call.body.user_id is None:
        raise InvalidInput("userId", "is required")
    app_id = await _app(context, call, project) if call.body.app_id else ""
    try:
        return await _open_session(context, call, call.body.user_id, app_id)
    except UnknownRecord as error:
        raise InvalidInput("userId", "is no user of the project") from error


async def _app(context: RestContext, call: Call[NoQuery, Credentials], project: Project) -> str:
    app_id = required("appId", call.body.app_id)
    if not await context.store.apps.exists(project.id, app_id):
        raise InvalidInput("appId", "is no app of the project")
    return app_id


async def _open_session(
    context: RestContext, call: Call[NoQuery, Credentials], user_id: int, app_id: str
) -> models.ClientAuthentication:
    return _answer(*await open_session(context, call.request, call.body.project_id, user_id, app_id))


def _answer(session: Session, key: str) -> models.ClientAuthentication:
    return models.ClientAuthentication(
        token=key, user_id=session.user_id, expiration_time=timestamp(session.expires_ms)
    )


async def create_login_token(context: RestContext, call: Call[NoQuery, None]) -> models.LoginToken:
    """A token for one login of the user."""
    lifetime_ms = milliseconds(context.settings.login_token_lifetime_s)
    token, expires_ms = await context.store.login_tokens.create(
        call.project_id, call.ids["userId"], lifetime_ms
    )
    return models.LoginToken(token=token, expiration_time=timestamp(expires_ms))


OPERATIONS: Final = (
    Operation(
        name="getAuthentication",
        method="GET",
        path="/auth",
        tag="Authentication",
        summary="Get the principal of the key",
        description="Without a valid key the answer is a success, too, with the type nobody.",
        source="spec 001, Get Authentication State",
        access=Access(
            anonymous=True,
            user=True,
            device=True,
            scope=KeyScope.READ,
            any_project_key=True,
            by_handler=True,
        ),
        handler=get_auth,
        answer=models.AuthenticationInfo,
        errors=frozenset(),
    ),
    Operation(
        name="authenticateUser",
        method="POST",
        path="/auth/user",
        tag="Authentication",
        summary="Get a key for a user",
        description="With e-mail accounts the body has email and password, with phone accounts phoneNumber "
        "and the code that was sent there; both with the id of an app of the project. With BYOU accounts it "
        "has userId, and a project key with the scope byou is needed; in other projects the header is "
        "ignored. An unknown address and a wrong password get the same answer. The first right code "
        "verifies a phone number.",
        source="spec 001, Authenticate a User",
        access=Access(anonymous=True, scope=KeyScope.BYOU, by_handler=True),
        handler=authenticate_user,
        body=Credentials,
        body_kind=BodyKind.FORM,
        answer=models.ClientAuthentication,
        errors=frozenset({401, 403, 429}),
    ),
    Operation(
        name="createLoginToken",
        method="POST",
        path="/users/{userId}/loginToken",
        tag="Users",
        summary="Get a token for one login of a user",
        description="For a project's own server, which has authenticated the user itself. "
        "POST /session/login-with-token takes the token once, within login_token_lifetime_s. A user has at "
        "most 20 of them: one more replaces the one that expires first.",
        source="homewire's own",
        access=Access(scope=KeyScope.ADMIN),
        handler=create_login_token,
        success=201,
        answer=models.LoginToken,
    ),
)


async def log_in_by_password(
    context: RestContext,
    request: web.Request,
    project: Project,
    name: str,
    password: str,
    *,
    app_id: str,
    authentication_type: str = "Bearer",
) -> tuple[User, Session, str]:
    """A new session of the user with the e-mail address `name`, and its key.

    `app_id` is the app, or the name of the session API; it is not looked up. A wrong password and an unknown
    name get the same answer in the same time, and both count as attempts.
    Raises LoginRefused (INCORRECT_PASSWORD, USER_UNVERIFIED; NO_PASSWORDS in a project without e-mail
    accounts), TooManyRequests, Unavailable.
    """
    if project.accounts is not AccountSystem.EMAIL:
        raise LoginRefused("NO_PASSWORDS", problem=f"the project has {project.accounts} accounts")
    # The attempt is counted before the password is checked: attempts at once are limited like a sequence.
    async with login_attempt(context, request, project.id, _normal_form(name)) as attempt:
        recognised = await context.store.users.authenticate(project.id, name, password)
        if recognised is None:
            raise attempt.failed(_wrong_credentials())
        user = recognised.user
        if not user.verified:
            # Within the attempt: the password of a registration does not prove the ownership of the address.
            await context.store.users.note_failed_login(project.id, user.id)
            raise LoginRefused("USER_UNVERIFIED", problem="the e-mail address was not verified yet")
    try:
        session, key = await open_session(
            context,
            request,
            project.id,
            user.id,
            app_id,
            authentication_type=authentication_type,
            password_hash=recognised.password_hash,
        )
    except (Conflict, UnknownRecord) as error:
        # The password was changed, or the user deleted, after the check.
        raise _wrong_credentials() from error
    return user, session, key


async def open_session(
    context: RestContext,
    request: web.Request,
    project_id: int,
    user_id: int,
    app_id: str,
    *,
    authentication_type: str = "Bearer",
    password_hash: str = "",
    parent: Session | None = None,
) -> tuple[Session, str]:
    """A new session of an authenticated user, and its key. Raises the errors of `Sessions.open`."""
    session, key = await context.store.sessions.open(
        project_id,
        user_id,
        app_id,
        client_info(context, request),
        authentication_type=authentication_type,
        password_hash=password_hash,
        parent=parent,
    )
    note(request, project=project_id, user=user_id, session=session.id)
    return session, key


def _normal_form(name: str) -> str:
    """The normal form of an address, which attempts are counted by; other names unchanged."""
    try:
        return checks.email(name)
    except InvalidInput:
        return name


def _wrong_credentials() -> LoginRefused:
    """The answer to a wrong password and to an unknown address."""
    return LoginRefused("INCORRECT_PASSWORD", problem="e-mail address or password is wrong")
