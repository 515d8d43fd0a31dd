"""Commands on login tokens: what lets a user in once, without a password."""

from __future__ import annotations

import typer

from homewire.cli.options import AnyProject, User
from homewire.cli.output import Answer
from homewire.cli.scope import Scope, command

login_tokens = typer.Typer(
    name="login-token",
    help="Login tokens: each lets its user in once (POST /session/login-with-token).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command tree."""
    app.add_typer(login_tokens)


@command(login_tokens, "create", changes=True)
async def create_login_token(scope: Scope, user: User, project: AnyProject = None) -> Answer:
    """Create a login token of a user. It is shown this once, and good for HOMEWIRE_LOGIN_TOKEN_LIFETIME_S."""
    project_id = await scope.project_of_user(project, user)
    lifetime_ms = max(1, round(scope.settings.login_token_lifetime_s * 1000))
    token, _ = await scope.store.login_tokens.create(project_id, user, lifetime_ms)
    return {"token": token}
