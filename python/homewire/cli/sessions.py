"""Commands on sessions: list and end them, and create login tokens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from homewire.cli.options import AnyProject, Project, User
from homewire.cli.output import Answer
from homewire.cli.scope import Scope, command
from homewire.errors import InvalidInput, UnknownRecord
from homewire.sessions.models import Session
from homewire.timestamps import timestamp

login_tokens = typer.Typer(
    name="login-token",
    help="Login tokens: each signs its user in once (POST /session/login-with-token).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

sessions = typer.Typer(
    name="sessions",
    help="Sessions of users and devices.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SessionId = Annotated[str, typer.Option("--id", help="Session id.")]


def register(app: typer.Typer) -> None:
    """Add the groups to the command tree."""
    app.add_typer(login_tokens)
    app.add_typer(sessions)


@command(login_tokens, "create", changes=True)
async def create_login_token(scope: Scope, user: User, project: AnyProject = None) -> Answer:
    """Create a login token of a user, shown only once and valid for HOMEWIRE_LOGIN_TOKEN_LIFETIME_S."""
    project_id = await scope.project_of_user(project, user)
    lifetime_ms = max(1, round(scope.settings.login_token_lifetime_s * 1000))
    token, _ = await scope.store.login_tokens.create(project_id, user, lifetime_ms)
    return {"token": token}


@command(sessions, "list")
async def list_sessions(
    scope: Scope,
    user: Annotated[
        int | None,
        typer.Option(help="Only sessions of this user. None: of all users and devices.", show_default=False),
    ] = None,
    project: Project = None,
) -> Answer:
    """List the active sessions of a project, oldest first, including those of devices."""
    project_id = await scope.project(project)
    if user is None:
        return [to_json(each) async for page in scope.store.sessions.pages(project_id) for each in page]
    if await scope.store.users.get(project_id, user) is None:
        raise UnknownRecord("user", user)
    found = await scope.store.sessions.of_user(project_id, user)
    return [to_json(each) for each in sorted(found, key=lambda each: (each.started_ms, each.id))]


@command(sessions, "show")
async def show_session(scope: Scope, session_id: SessionId, project: Project = None) -> Answer:
    """Show a session. An ended session is stored for 30 days."""
    project_id = await scope.project(project)
    session = await scope.store.sessions.get(project_id, session_id)
    if session is None:
        raise UnknownRecord("session", session_id)
    return {
        **to_json(session),
        "host": session.host,
        "authenticationType": session.authentication_type,
        "roles": list(session.roles),
        "nodeId": session.node,
        "endsAt": timestamp(session.ends_ms) if session.ends_ms else None,
        "ancestors": list(session.ancestors),
        "closedAt": timestamp(session.closed_ms) if session.closed_ms else None,
        "version": session.version,
    }


@command(sessions, "end", changes=True)
async def end_session(
    scope: Scope,
    session_id: Annotated[str, typer.Option("--id", help="Session id.", show_default=False)] = "",
    user: Annotated[int | None, typer.Option(help="With --all: the user.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All sessions of --user.")] = False,
    project: Project = None,
) -> Answer:
    """End a session, or all sessions of a user. Keys are refused and WebSockets closed at once.

    Sessions that were created with the key of an ended session end, too.
    """
    if bool(session_id) == every or every != (user is not None):
        raise InvalidInput("id", "give either --id, or --user with --all")
    project_id = await scope.project(project)
    if user is None:
        await scope.store.sessions.end(project_id, session_id)
        return {"sessionId": session_id}
    if await scope.store.users.get(project_id, user) is None:
        raise UnknownRecord("user", user)
    await scope.store.sessions.end_all(project_id, user)
    return {"userId": user}


def to_json(session: Session) -> dict[str, Any]:
    """A session in a list."""
    holder = {"userId": session.user_id} if session.user_id else {"deviceId": session.device_id}
    return {
        "sessionId": session.id,
        **holder,
        "appId": session.app_id,
        "startedAt": timestamp(session.started_ms),
        "lastAccessAt": timestamp(session.last_access_ms),
        "expiresAt": timestamp(session.expires_ms),
        "address": session.address,
        "userAgent": session.user_agent,
    }
