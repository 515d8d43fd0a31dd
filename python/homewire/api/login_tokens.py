"""Login tokens, for a project's own server (issue 6; shared data models, *Sessions*)."""

from __future__ import annotations

from typing import Final

from homewire.api import models
from homewire.api.accounts import milliseconds
from homewire.api.context import Api
from homewire.api.operation import Access, Call, NoQuery, Operation
from homewire.api.times import timestamp
from homewire.model import Permission


async def create_login_token(api: Api, call: Call[NoQuery, None]) -> models.LoginToken:
    """A token that lets the user in once."""
    lifetime_ms = milliseconds(api.settings.login_token_lifetime_s)
    token, expires_ms = await api.store.login_tokens.create(call.project_id, call.ids["userId"], lifetime_ms)
    return models.LoginToken(token=token, expiration_time=timestamp(expires_ms))


OPERATIONS: Final = (
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
        access=Access(permission=Permission.ADMIN),
        handler=create_login_token,
        success=201,
        answer=models.LoginToken,
    ),
)
