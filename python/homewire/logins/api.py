"""Who calls, and how somebody gets a key (spec 001, *Authentication*).

Login tokens, for a project's own server (data models, *Sessions*).
"""

from __future__ import annotations

from typing import Final

from homewire.auth.models import PrincipalKind
from homewire.errors import InvalidInput, Unauthenticated, UnknownRecord
from homewire.logins.attempting import login_attempt
from homewire.logins.login import by_password, opened
from homewire.projects.models import AccountSystem, KeyScope, Project
from homewire.rest import models
from homewire.rest.context import Api
from homewire.rest.operation import Access, BodyKind, Call, NoQuery, Operation
from homewire.rest.patching import WholeObject
from homewire.sessions.models import Session
from homewire.store import checks
from homewire.timestamps import timestamp
from homewire.users.accounts import (
    milliseconds,
    open_project,
    refuse_other_systems,
    require_byou_key,
    required,
)


class Credentials(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Authenticate a User*: what is needed depends on the project's account system."""

    project_id: models.Id
    app_id: str | None = None
    phone_number: str | None = None
    code: str | None = None
    email: str | None = None
    password: str | None = None
    user_id: models.IdOrZero | None = None


async def get_auth(api: Api, call: Call[NoQuery, None]) -> models.AuthenticationInfo:
    """Who the key speaks for; without a valid one nobody."""
    try:
        caller = await api.authenticate(call.request)
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


async def authenticate_user(api: Api, call: Call[NoQuery, Credentials]) -> models.ClientAuthentication:
    """Open a session for somebody who proves who they are."""
    project = await open_project(api, call.body.project_id)
    refuse_other_systems(call.body, project.accounts)
    match project.accounts:
        case AccountSystem.EMAIL:
            return await _by_password(api, call, project)
        case AccountSystem.PHONE:
            return await _by_code(api, call, project)
        case AccountSystem.BYOU:
            return await _by_project_key(api, call, project)


async def _by_password(
    api: Api, call: Call[NoQuery, Credentials], project: Project
) -> models.ClientAuthentication:
    app_id = await _app(api, call, project)
    email = checks.email(required("email", call.body.email))
    password = required("password", call.body.password)
    _, session, key = await by_password(api, call.request, project, email, password, app_id=app_id)
    return _answer(session, key)


async def _by_code(
    api: Api, call: Call[NoQuery, Credentials], project: Project
) -> models.ClientAuthentication:
    app_id = await _app(api, call, project)
    phone = checks.phone(required("phoneNumber", call.body.phone_number))
    code = required("code", call.body.code)
    async with login_attempt(api, call.request, project.id, phone) as attempt:
        user = await api.store.users.by_phone(project.id, phone)
        if user is None or not await api.store.verifications.redeem_code(project.id, user.id, code):
            await api.store.users.note_failed_login(project.id, user.id if user else 0)
            raise attempt.wrong(InvalidInput("code", "is wrong, used or too old", reason="INVALID_AUTH_CODE"))
    return await _opened(api, call, user.id, app_id)


async def _by_project_key(
    api: Api, call: Call[NoQuery, Credentials], project: Project
) -> models.ClientAuthentication:
    await require_byou_key(api, call.request, project)
    if call.body.user_id is None:
        raise InvalidInput("userId", "is required")
    app_id = await _app(api, call, project) if call.body.app_id else ""
    try:
        return await _opened(api, call, call.body.user_id, app_id)
    except UnknownRecord as error:
        raise InvalidInput("userId", "is no user of the project") from error


async def _app(api: Api, call: Call[NoQuery, Credentials], project: Project) -> str:
    app_id = required("appId", call.body.app_id)
    if not await api.store.apps.exists(project.id, app_id):
        raise InvalidInput("appId", "is no app of the project")
    return app_id


async def _opened(
    api: Api, call: Call[NoQuery, Credentials], user_id: int, app_id: str
) -> models.ClientAuthentication:
    return _answer(*await opened(api, call.request, call.body.project_id, user_id, app_id))


def _answer(session: Session, key: str) -> models.ClientAuthentication:
    return models.ClientAuthentication(
        token=key, user_id=session.user_id, expiration_time=timestamp(session.expires_ms)
    )


async def create_login_token(api: Api, call: Call[NoQuery, None]) -> models.LoginToken:
    """A token that lets the user in once."""
    lifetime_ms = milliseconds(api.settings.login_token_lifetime_s)
    token, expires_ms = await api.store.login_tokens.create(call.project_id, call.ids["userId"], lifetime_ms)
    return models.LoginToken(token=token, expiration_time=timestamp(expires_ms))


OPERATIONS: Final = (
    Operation(
        name="getAuthentication",
        method="GET",
        path="/auth",
        tag="Authentication",
        summary="Ask who the key speaks for",
        description="Without a valid key the answer is a success, too: type nobody.",
        source="spec 001, Get Authentication State",
        access=Access(
            nobody=True,
            user=True,
            device=True,
            permission=KeyScope.READ,
            every_project_key=True,
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
        "has userId, and a project key with the permission byou is needed; in other projects the header is "
        "not looked at. An unknown address and a wrong password get the same answer. The first right code "
        "verifies a phone number.",
        source="spec 001, Authenticate a User",
        access=Access(nobody=True, permission=KeyScope.BYOU, by_handler=True),
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
        summary="Get a token that lets a user in once",
        description="For a project's own server, which knows who its user is. POST /session/login-with-token "
        "takes the token, once, within login_token_lifetime_s. A user has at most 20 of them; one more, and "
        "the one that expires first is good no more.",
        source="homewire's own",
        access=Access(permission=KeyScope.ADMIN),
        handler=create_login_token,
        success=201,
        answer=models.LoginToken,
    ),
)
