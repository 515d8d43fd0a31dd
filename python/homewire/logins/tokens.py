"""Login tokens: what a user enters with whom an operator, or their project's own server, let in. Each works
once and for a while, and is stored only as a hash.

Scripts of login tokens. See `script.py` for what they answer.

When devices logged in, and when that was tried in vain: what a node session tells of (spec 002).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple

from homewire.auth.tokens import SECRET_BYTES, token_hash
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, removing
from homewire.users.scripts import NOTE_FAILED_LOGIN

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


CREATE_LOGIN_TOKEN: Final = changing("""
-- KEYS: …, user, login tokens of the user. ARGV: hash, now, expires, most
-- Those whose time is over go, and with one too many the one that expires first.
local user = redis.call('HMGET', KEYS[3], 'created', 'invited')
if not user[1] or user[2] == '1' then return {'unknown', 'user'} end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ARGV[2])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[4]))
redis.call('PEXPIREAT', KEYS[4], redis.call('ZRANGE', KEYS[4], -1, -1, 'WITHSCORES')[2])
return unannounced('login_token_created')
""")

REDEEM_LOGIN_TOKEN: Final = removing("""
-- KEYS: …, login tokens of the user. ARGV: hash, now
-- Whoever takes it away has it: of many at once, one.
local expires = redis.call('ZSCORE', KEYS[3], ARGV[1])
if not expires or tonumber(expires) <= tonumber(ARGV[2]) then return {'wrong'} end
redis.call('ZREM', KEYS[3], ARGV[1])
return unannounced('login_token_redeemed')
""")


class Logins(NamedTuple):
    """The last ones, in ms since 1970; 0: never."""

    last_ms: int
    last_failed_ms: int


class NodeLogins:
    """Of the devices of a project. Those that succeeded are noted by the script that opens the session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, project_id: int, device_id: int) -> Logins | None:
        """Those of a device; None if there is no such device."""
        record = await self._database.read_hash(ProjectSlot(project_id).device(device_id))
        if not record:
            return None
        return Logins(int(record.get("last_login", 0)), int(record.get("last_failed_login", 0)))

    async def note_failed(self, project_id: int, device_id: int) -> None:
        """Somebody tried in vain to log in as this device. For an unknown id as much is done, for nothing."""
        slot = ProjectSlot(project_id)
        await self._database.change(
            NOTE_FAILED_LOGIN, slot, [slot.device(device_id)], [self._database.now_ms()]
        )
