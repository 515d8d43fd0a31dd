"""Login tokens: what a user enters with whom an operator, or their project's own server, let in. Each works
once and for a while, and is stored only as a hash."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final

from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.scripts.login_tokens import CREATE_LOGIN_TOKEN, REDEEM_LOGIN_TOKEN
from homewire.store.tokens import SECRET_BYTES, token_hash

MOST: Final = 20
"""Login tokens of one user that are good at the same time; with one more the one that expires first goes."""
# It names its user, whose tokens lie in one key. No key has this shape, so neither passes for the other.
_SHAPE: Final = re.compile(r"v1\.([1-9][0-9]{0,15})\.([1-9][0-9]{0,15})\.[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoginToken:
    """Whose a login token says that it is: nothing is known of it yet."""

    project_id: int
    user_id: int
    hash: str
    """SHA-256 of the whole token, 64 hex digits."""


class LoginTokens:
    """The login tokens of the users of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, user_id: int, lifetime_ms: int) -> tuple[str, int]:
        """A new token, which is shown this once, and when its time is over in ms. Raises UnknownRecord."""
        token = f"v1.{project_id}.{user_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
        slot, now = ProjectSlot(project_id), self._database.now_ms()
        expires_ms = now + lifetime_ms
        answer = await self._database.change(
            CREATE_LOGIN_TOKEN,
            slot,
            [slot.user(user_id), slot.user_login_tokens(user_id)],
            [token_hash(token), now, expires_ms, MOST],
        )
        require_ok(answer, project=project_id, user=user_id)
        return token, expires_ms

    async def redeem(self, token: LoginToken) -> bool:
        """Whether the token is good. It is spent then: of many who try at once, one is told so."""
        slot = ProjectSlot(token.project_id)
        answer = await self._database.change(
            REDEEM_LOGIN_TOKEN,
            slot,
            [slot.user_login_tokens(token.user_id)],
            [token.hash, self._database.now_ms()],
        )
        return answer[0] == "ok"


def parse(token: str) -> LoginToken | None:
    """What a well-shaped login token says; None, without any look-up, for everything else."""
    shape = _SHAPE.fullmatch(token)
    return LoginToken(int(shape[1]), int(shape[2]), token_hash(token)) if shape else None
