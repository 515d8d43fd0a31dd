"""Somebody proves who they are and gets a session: the same for every view of sessions.

A login always makes a new session with a new key. Whatever key or cookie came along is not looked at.
"""

from __future__ import annotations

from aiohttp import web

from homewire.audit import note
from homewire.errors import Conflict, InvalidInput, LoginRefused, UnknownRecord
from homewire.logins.attempting import login_attempt
from homewire.projects.models import AccountSystem, Project
from homewire.rest.context import Api
from homewire.sessions.models import Session
from homewire.store import checks
from homewire.users.accounts import login_of
from homewire.users.models import User


async def by_password(
    api: Api,
    request: web.Request,
    project: Project,
    name: str,
    password: str,
    *,
    app_id: str,
    authentication_type: str = "Bearer",
) -> tuple[User, Session, str]:
    """A new session of the user whose e-mail address is `name`, and its key.

    `app_id` is the app, or the name of the view that somebody comes through; it is not looked up. One
    answer, in the same time, for a wrong password and for a name that nobody has; both count as attempts.
    Raises LoginRefused (INCORRECT_PASSWORD, USER_UNVERIFIED; NO_PASSWORDS in a project without e-mail
    accounts), TooManyRequests, Unavailable.
    """
    if project.accounts is not AccountSystem.EMAIL:
        raise LoginRefused("NO_PASSWORDS", problem=f"the project has {project.accounts} accounts")
    # It counts before it is looked at, so that many at once are no more than one after the other.
    async with login_attempt(api, request, project.id, _in_one_way(name)) as attempt:
        recognised = await api.store.users.recognise(project.id, name, password)
        if recognised is None:
            raise attempt.wrong(_wrong())
        user = recognised.user
        if not user.verified:
            # Within: who knows the password of a registration is not yet the owner of the address.
            await api.store.users.note_failed_login(project.id, user.id)
            raise LoginRefused("USER_UNVERIFIED", problem="the e-mail address was not verified yet")
    try:
        session, key = await opened(
            api,
            request,
            project.id,
            user.id,
            app_id,
            authentication_type=authentication_type,
            password_hash=recognised.password_hash,
        )
    except (Conflict, UnknownRecord) as error:
        # Changed, or the user deleted, since it was right.
        raise _wrong() from error
    return user, session, key


async def opened(
    api: Api,
    request: web.Request,
    project_id: int,
    user_id: int,
    app_id: str,
    *,
    authentication_type: str = "Bearer",
    password_hash: str = "",
    parent: Session | None = None,
) -> tuple[Session, str]:
    """A new session of somebody who proved who they are, and its key. Raises as `Sessions.open` does."""
    session, key = await api.store.sessions.open(
        project_id,
        user_id,
        app_id,
        login_of(api, request),
        authentication_type=authentication_type,
        password_hash=password_hash,
        parent=parent,
    )
    note(request, project=project_id, user=user_id, session=session.id)
    return session, key


def _in_one_way(name: str) -> str:
    """An address as it is counted, in whatever way it was written; what is none as it is."""
    try:
        return checks.email(name)
    except InvalidInput:
        return name


def _wrong() -> LoginRefused:
    """One answer for a wrong password and for an address that nobody has."""
    return LoginRefused("INCORRECT_PASSWORD", problem="e-mail address or password is wrong")
