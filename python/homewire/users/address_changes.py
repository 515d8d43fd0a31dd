"""New e-mail addresses and phone numbers of users: they count when their user has proven them by a code.

Scripts of new addresses and numbers of users. See `script.py` for what they answer.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from homewire.errors import UnknownRecord
from homewire.messages.models import Posting
from homewire.projects.models import AccountSystem
from homewire.sessions.store import Sessions
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.proofs import MessageFactory
from homewire.store.script import changing, removing
from homewire.users.models import User
from homewire.users.store import Users, taken

CODE_DIGITS: Final = 8
"""More than of a code to sign in: a user who holds a key may ask for one after the other."""
CODE_TRIES: Final = 5
"""Wrong tries that a code outlives, less one."""


class AddressChanges:
    """Changes the address that the users of a project are known by: an e-mail address, or a number."""

    def __init__(self, database: Database, sessions: Sessions, users: Users) -> None:
        self._database = database
        self._sessions = sessions
        self._users = users

    async def begin(self, user: User, address: str, lifetime_ms: int, saying: MessageFactory) -> None:
        """Have a code sent to a new address, given in its normal form. The code before it is dead.

        Raises UnknownRecord, and Conflict (EMAIL_IN_USE, USER_EXISTS, USER_EXISTS_UNVERIFIED).
        """
        slot, code = ProjectSlot(user.project_id), f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
        answer = await self._database.change(
            BEGIN_CHANGE,
            slot,
            [slot.user(user.id), slot.user_proofs(user.id), self._directory(slot, user)],
            [
                user.id, address.lower(), address, _hash(user, code),
                self._database.now_ms() + lifetime_ms, lifetime_ms, *saying(code),
            ],
        )  # fmt: skip
        await self._require_free(user, answer)

    async def finish(self, user: User, code: str, session_id: str, posting: Posting) -> bool:
        """Whether the code is right: the new address counts then, and the user's other sessions have ended.

        `posting` tells the address before. Raises as `begin` does.
        """
        slot = ProjectSlot(user.project_id)
        for _ in range(ATTEMPTS):
            answer = await self._database.change(
                FINISH_CHANGE,
                slot,
                [
                    slot.user(user.id), slot.user_proofs(user.id), self._directory(slot, user),
                    slot.user_sessions(user.id), slot.user_registrations(user.id),
                ],
                [
                    user.id, _hash(user, code), self._database.now_ms(), CODE_TRIES, session_id,
                    _system(user).value, *posting,
                ],
            )  # fmt: skip
            if answer[0] == "wrong":
                return False
            if answer[0] != "moved":
                await self._require_free(user, answer)
                return True
            await self._sessions.end_all(user.project_id, user.id, but=session_id)
        raise retries_exhausted("user")

    async def _require_free(self, user: User, answer: list[str]) -> None:
        if answer[0] == "held":
            holder = await self._users.get_any(user.project_id, int(answer[1]))
            if holder is None:
                raise retries_exhausted("user")
            raise taken(_system(user).value, holder)
        require_ok(answer, project=user.project_id, user=user.id)

    @staticmethod
    def _directory(slot: ProjectSlot, user: User) -> str:
        return slot.emails if _system(user) is AccountSystem.EMAIL else slot.phones


def _system(user: User) -> AccountSystem:
    """By what the user is known."""
    if user.email is None and user.phone is None:
        raise UnknownRecord("address of user", user.id)
    return AccountSystem.EMAIL if user.email is not None else AccountSystem.PHONE


def _hash(user: User, code: str) -> str:
    return hashlib.sha256(f"{user.project_id}.{user.id}.{code}".encode("utf-8", "replace")).hexdigest()


BEGIN_CHANGE: Final = changing(
    """
-- KEYS: …, user, proofs of the user, users by address. ARGV: user id, address in its unique form, address,
--       hash of the code, expires, lifetime in ms, queue and letter that tell it
local user = redis.call('HMGET', KEYS[3], 'created', 'invited')
if not user[1] or user[2] == '1' then return {'unknown', 'user'} end
local holder = redis.call('HGET', KEYS[5], ARGV[2])
if holder and holder ~= ARGV[1] then return {'held', holder} end
redis.call('HSET', KEYS[4], 'change', ARGV[4], 'change_unique', ARGV[2], 'change_to', ARGV[3],
  'change_expires', ARGV[5], 'change_tries', '0')
-- The proofs of a user live as long as the longest of them.
if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[4], ARGV[6]) end
queue_message(ARGV[7], ARGV[8])
return unannounced('address_change_begun')
""",
    sends=True,
)

FINISH_CHANGE: Final = removing(
    """
-- KEYS: …, user, proofs of the user, users by address, sessions of the user, registrations of the user
-- ARGV: user id, hash of the code, now, most tries, session that stays, email or phone, queue and letter that
--       tell the address before
-- A try counts before it is looked at, and the last one takes the code away. A right code is kept until it
-- counts: then only the session that gave it is left, and nothing that was sent to the old address is good.
local function forget()
  redis.call('HDEL', KEYS[4], 'change', 'change_unique', 'change_to', 'change_expires', 'change_tries')
end
local change = redis.call('HMGET', KEYS[4], 'change', 'change_unique', 'change_to', 'change_expires')
if not change[1] or tonumber(change[4]) <= tonumber(ARGV[3]) then return {'wrong'} end
if change[1] ~= ARGV[2] then
  if redis.call('HINCRBY', KEYS[4], 'change_tries', 1) >= tonumber(ARGV[4]) then forget() end
  return {'wrong'}
end
if redis.call('HEXISTS', KEYS[3], 'created') == 0 then return {'unknown', 'user'} end
local holder = redis.call('HGET', KEYS[5], change[2])
if holder and holder ~= ARGV[1] then
  forget()
  return {'held', holder}
end
local others = redis.call('ZCOUNT', KEYS[6], '(' .. ARGV[3], '+inf')
if tonumber(redis.call('ZSCORE', KEYS[6], ARGV[5]) or 0) > tonumber(ARGV[3]) then others = others - 1 end
if others > 0 then return {'moved'} end
local unique = ARGV[6] == 'email' and 'unique_email' or 'phone'
local before = redis.call('HGET', KEYS[3], unique)
if before and before ~= '' then redis.call('HDEL', KEYS[5], before) end
redis.call('HSET', KEYS[5], change[2], ARGV[1])
redis.call('HSET', KEYS[3], unique, change[2], ARGV[6], change[3])
forget()
redis.call('HDEL', KEYS[4], 'passwordReset', 'code', 'code_expires', 'code_tries')
redis.call('UNLINK', KEYS[7])
queue_message(ARGV[7], ARGV[8])
return unannounced('address_changed')
""",
    sends=True,
)
