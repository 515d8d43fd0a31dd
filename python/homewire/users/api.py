"""Users (spec 001, *Users*), in projects with e-mail, phone or BYOU accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec

from homewire.auth.actions import Action
from homewire.errors import Conflict, NotFound, Unauthenticated, UnknownRecord
from homewire.logins import passwords
from homewire.logins.attempt_limits import (
    limited_action,
    limited_attempt,
    message_limits,
    password_change_limits,
    registration_limits,
    sms_limits,
)
from homewire.projects.models import AccountSystem, KeyScope, Project
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.decoding import WholeObject, changes
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.store import checks
from homewire.store.parts import Part
from homewire.timestamps import timestamp
from homewire.users.accounts import (
    code_by_sms,
    open_project,
    reject_other_account_systems,
    require_byou_key,
    require_sms_country,
    required,
    token_by_mail,
)
from homewire.users.models import ProofKind
from homewire.users.models import User as UserRecord
from homewire.users.verification_api import new_password

_MUTABLE: Final = frozenset({"name", "password", "current_password", "keep_other_sessions", "ui_time_zone"})


class NewUser(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Create User*: which members it needs depends on the project's account system."""

    project_id: models.Id
    name: str | None = None
    email: str | None = None
    password: str | None = None
    phone_number: str | None = None
    external_key: str | None = None


class UserPatch(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Update User*. Other members than name, password and time zone must not differ."""

    id: int | msgspec.UnsetType = msgspec.UNSET
    project_id: int | msgspec.UnsetType = msgspec.UNSET
    creation_time: str | msgspec.UnsetType = msgspec.UNSET
    email: str | msgspec.UnsetType | None = msgspec.UNSET
    phone_number: str | msgspec.UnsetType | None = msgspec.UNSET
    external_key: str | msgspec.UnsetType | None = msgspec.UNSET
    verified: bool | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    password: str | msgspec.UnsetType | None = msgspec.UNSET
    current_password: str | msgspec.UnsetType | None = msgspec.UNSET
    """Needed for a new password."""
    keep_other_sessions: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether a new password leaves the user's other sessions as they are."""
    ui_time_zone: str | msgspec.UnsetType = msgspec.UNSET


class UserQuery(Paging, kw_only=True, rename="camel"):
    """Selects users."""

    search: str = ""
    """Part of a name, e-mail address, phone number or external key, in any case."""


def to_response(user: UserRecord) -> models.User:
    """A user as in answers of the REST API."""
    return models.User(
        id=user.id,
        project_id=user.project_id,
        creation_time=timestamp(user.created_ms),
        name=user.name,
        verified=user.verified,
        phone_number=user.phone,
        email=user.email,
        external_key=user.external_key,
        ui_time_zone=None if user.ui_time_zone == "UTC" else user.ui_time_zone,
    )


async def create_user(context: RestContext, call: Call[NoQuery, NewUser]) -> models.User:
    """Register a user and send a verification; or create a user of a BYOU project, with its key."""
    project = await open_project(context, call.body.project_id)
    reject_other_account_systems(call.body, project.accounts)
    match project.accounts:
        case AccountSystem.EMAIL:
            return to_response(await _register_by_email(context, call, project))
        case AccountSystem.PHONE:
            return to_response(await _register_by_phone(context, call, project))
        case AccountSystem.BYOU:
            await require_byou_key(context, call.request, project)
            body = call.body
            return to_response(
                await context.store.users.create(
                    project.id, body.name or "", external_key=body.external_key or None
                )
            )


async def _register_by_email(
    context: RestContext, call: Call[NoQuery, NewUser], project: Project
) -> UserRecord:
    email = checks.email(required("email", call.body.email))
    password = required("password", call.body.password)
    name = checks.name("name", required("name", call.body.name))
    passwords.check_length(password)
    await passwords.reject_guessable(password, (name, email))
    async with _registering(context, call, project, email):
        verification = await token_by_mail(context, project.id, ProofKind.EMAIL_VERIFICATION, email)
        return await context.store.users.create(
            project.id, name, email=email, password=password, verification=verification
        )


async def _register_by_phone(
    context: RestContext, call: Call[NoQuery, NewUser], project: Project
) -> UserRecord:
    phone = checks.phone(required("phoneNumber", call.body.phone_number))
    name = checks.name("name", required("name", call.body.name))
    require_sms_country(context, project, phone)
    async with _registering(context, call, project, phone):
        verification = await code_by_sms(context, project.id, phone)
        return await context.store.users.create(project.id, name, phone=phone, verification=verification)


@asynccontextmanager
async def _registering(
    context: RestContext, call: Call[NoQuery, NewUser], project: Project, to: str
) -> AsyncIterator[None]:
    """Limit a registration. A refused one does not count against the messages to the address; a refusal that
    reveals a user counts against the registrations of the client."""
    async with limited_attempt(context, project.id, registration_limits(context, call.request)) as attempt:
        counted = sms_limits if project.accounts is AccountSystem.PHONE else message_limits
        try:
            async with limited_action(
                context, project.id, await counted(context, call.request, project.id, to)
            ):
                await context.store.users.require_free(project.id, to)
                yield
        except Conflict as error:
            raise attempt.failed(error) from None


async def _user(context: RestContext, project_id: int, user_id: int) -> UserRecord:
    user = await context.store.users.get(project_id, user_id)
    if user is None:
        raise NotFound
    return user


async def get_user(context: RestContext, call: Call[NoQuery, None]) -> models.User:
    """The caller."""
    return to_response(await _user(context, call.project_id, call.ids["userId"]))


async def update_user(context: RestContext, call: Call[NoQuery, UserPatch]) -> None:
    """Change name, password and time zone."""
    user = await _user(context, call.project_id, call.ids["userId"])
    changed = changes(call.body, to_response(user), _MUTABLE)
    if changed.get("name") == user.name:
        # The name of a BYOU user may be empty, and stay so.
        del changed["name"]
    # A password cannot be removed: clients that send the whole object leave it empty.
    password = changed.get("password") or None
    async with AsyncExitStack() as stack:
        chosen = None
        if password is not None:
            await stack.enter_async_context(
                limited_action(context, user.project_id, password_change_limits(context, user.id))
            )
            chosen = await new_password(
                context,
                call,
                user,
                password,
                changed.get("current_password") or None,
                keep_others=changed.get("keep_other_sessions", False),
            )
        await context.store.users.update(
            user.project_id, user.id, changed.get("name"), changed.get("ui_time_zone"), chosen
        )


async def delete_user(context: RestContext, call: Call[NoQuery, None]) -> None:
    """Delete the caller. The session is leased, so that no other request ends it before."""
    sessions, project_id = context.store.sessions, call.project_id
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(sessions.lease(project_id, call.principal.session_id))
        except UnknownRecord as error:
            # The session ended after the key was checked.
            raise Unauthenticated from error
        await context.store.users.delete(project_id, call.ids["userId"])


async def list_users(context: RestContext, call: Call[UserQuery, None]) -> Part[models.User]:
    """The users of the project."""
    query = call.query
    part = await context.store.users.part(call.project_id, query.skip, query.limit, query.search)
    return part.map(to_response)


OPERATIONS: Final = (
    Operation(
        name="createUser",
        method="POST",
        path="/users",
        tag="Users",
        summary="Register a user, or create one of a BYOU project",
        description="With e-mail accounts the body has email, password and name, and the server mails a link "
        "that verifies the address. With phone accounts it has phoneNumber and name, and the server sends a "
        "sign-in code. The user is not verified until the link or code is used.\n\n"
        "An e-mail address that is not verified may be registered again. The registration whose link is used "
        "becomes the user, under the same id. With BYOU accounts name and externalKey are optional, and a "
        "project key with the scope byou is needed. A member of a home who was invited under the address "
        "becomes this user, with the same id.",
        source="spec 001, Create User",
        access=Access(anonymous=True, scope=KeyScope.BYOU, by_handler=True),
        handler=create_user,
        body=NewUser,
        success=201,
        located="id",
        answer=models.User,
        errors=frozenset({403, 429}),
    ),
    Operation(
        name="getUsers",
        method="GET",
        path="/users",
        tag="Users",
        summary="List the users of the project",
        description="With search the server reads all users of the project.",
        source="data models, User",
        access=Access(scope=KeyScope.READ),
        handler=list_users,
        query=UserQuery,
        answer=list[models.User],
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="getUser",
        method="GET",
        path="/users/{userId}",
        tag="Users",
        summary="Get the user of the key",
        source="spec 001, Get User",
        access=Access(user=True),
        action=Action.USE_ACCOUNT,
        handler=get_user,
        answer=models.User,
    ),
    Operation(
        name="updateUser",
        method="PATCH",
        path="/users/{userId}",
        tag="Users",
        summary="Change name, password or time zone",
        description="All other members may be sent unchanged. A new password needs the present one, "
        "currentPassword, or a login (not with the key of another session) within the last minutes "
        "(recent_login_s): else 403 INSUFFICIENT_AUTH. It ends the user's other sessions, unless "
        "keepOtherSessions is true, and the server mails a notice to the user. A session that was opened "
        "with the key of another one ends with it. `user_passwords` limits how often a user may set a "
        "password.\n\n"
        "uiTimeZone is the time zone of the IANA database in which applications show times. The default is "
        "UTC, which answers leave out.",
        source="spec 001, Update User",
        access=Access(user=True),
        action=Action.USE_ACCOUNT,
        handler=update_user,
        body=UserPatch,
        success=204,
        errors=frozenset({401, 403, 404, 429}),
    ),
    Operation(
        name="deleteUser",
        method="DELETE",
        path="/users/{userId}",
        tag="Users",
        summary="Delete the user of the key",
        description="All keys of the user are invalid, and the address is free again. A home where the user "
        "was the only member is deleted. Where the user was the last owner of several members, the member "
        "with the longest membership becomes owner. For a user with more than 20 homes this follows after "
        "the answer.",
        source="spec 001, Delete User",
        access=Access(user=True),
        action=Action.USE_ACCOUNT,
        handler=delete_user,
        success=204,
    ),
)
