"""What people prove with that an address is theirs: tokens in e-mails, codes in SMS. Stored only as hashes,
each works once and for a while, and of each kind only a user's newest.

Scripts of what people prove with that an address is theirs. See `script.py` for what they answer.

New e-mail addresses and phone numbers of users: they count when their user has proven them by a code.

Scripts of new addresses and numbers of users. See `script.py` for what they answer.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from homewire.auth import tokens
from homewire.errors import InvalidInput, UnknownRecord
from homewire.messages.models import Posting
from homewire.projects.models import AccountSystem
from homewire.sessions.store import Sessions
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.proofs import MessageFactory, ProofKind, code_hash, new_code, new_token, posted
from homewire.store.script import changing, removing
from homewire.users.deletion import NOTHING
from homewire.users.models import User
from homewire.users.registrations import Registrations
from homewire.users.scripts import VERIFYING
from homewire.users.store import Users, taken

CODE_TRIES: Final = 5
"""Wrong tries that a code outlives, less one: one in 200,000 guesses it."""
DECOY_MS: Final = 1000


class Verifications:
    """The codes and tokens of the users of a project. What a `saying` makes of one goes out with it."""

    def __init__(self, database: Database, sessions: Sessions, registrations: Registrations) -> None:
        self._database = database
        self._registrations = registrations
        self._sessions = sessions

    async def issue_token(
        self,
        project_id: int,
        user_id: int,
        kind: ProofKind,
        lifetime_ms: int,
        saying: MessageFactory | None = None,
    ) -> str:
        """A new token, which is shown this once. The one before it is dead.

        Raises UnknownRecord, and for EMAIL_VERIFICATION Several (`users/registrations.py`).
        """
        if kind is ProofKind.EMAIL_VERIFICATION:
            return await self._registrations.issue(project_id, user_id, lifetime_ms, saying)
        return await self._issue_token(project_id, user_id, kind, lifetime_ms, saying)

    async def issue_decoy(self, project_id: int, kind: ProofKind, saying: MessageFactory) -> None:
        """A token of nobody, so that nobody takes as long as somebody. What it writes is gone at once."""
        nobody = -secrets.randbits(62)
        if kind is ProofKind.EMAIL_VERIFICATION:
            await self._registrations.issue(project_id, nobody, DECOY_MS, saying, decoy=True)
            return
        await self._issue_token(project_id, nobody, kind, DECOY_MS, saying, decoy=True)

    async def _issue_token(
        self,
        project_id: int,
        user_id: int,
        kind: ProofKind,
        lifetime_ms: int,
        saying: MessageFactory | None,
        *,
        decoy: bool = False,
    ) -> str:
        slot, proof = ProjectSlot(project_id), new_token(project_id, kind)
        message = posted(saying, proof.secret)
        for _ in range(ATTEMPTS):
            before = await self._database.read("HGET", slot.user_proofs(user_id), kind.value)
            replaced = before.decode() if before else ""
            answer = await self._database.change(
                ISSUE_TOKEN,
                slot,
                [
                    slot.user(user_id), slot.user_proofs(user_id),
                    slot.proof(replaced or NOTHING), slot.proof(proof.hash),
                ],
                [user_id, kind.value, replaced, proof.hash, lifetime_ms, int(decoy), *message],
            )  # fmt: skip
            if answer[0] != "moved":
                require_ok(answer, project=project_id, user=user_id)
                return proof.secret
        raise retries_exhausted("user")

    async def issue_code(
        self, project_id: int, user_id: int, lifetime_ms: int, saying: MessageFactory | None = None
    ) -> str:
        """A new sign-in code, decimal digits. The one before it is dead. Raises UnknownRecord."""
        slot, proof = ProjectSlot(project_id), new_code(project_id, user_id)
        expires_ms = self._database.now_ms() + lifetime_ms
        answer = await self._database.change(
            ISSUE_CODE,
            slot,
            [slot.user(user_id), slot.user_proofs(user_id)],
            [proof.hash, expires_ms, lifetime_ms, *posted(saying, proof.secret)],
        )
        require_ok(answer, project=project_id, user=user_id)
        return proof.secret

    async def redeem_code(self, project_id: int, user_id: int, code: str) -> bool:
        """Whether this is the user's code. It is spent then, and the user is verified.

        The last of `CODE_TRIES` wrong tries takes the code away.
        """
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            REDEEM_CODE,
            slot,
            [
                slot.user(user_id), slot.user_proofs(user_id), slot.users, slot.user_registrations(user_id),
                slot.unverified_users, slot.invited_users,
            ],
            [code_hash(project_id, user_id, code), self._database.now_ms(), CODE_TRIES, user_id],
        )  # fmt: skip
        return _redeemed(answer)

    async def holder(self, token: str, kind: ProofKind) -> tuple[int, int] | None:
        """The project and the user that a token is from, while it is good for `kind`."""
        reference = tokens.parse(token)
        if reference is None:
            return None
        slot = ProjectSlot(reference.project_id)
        found, _, user_id = (await self._database.read("GET", slot.proof(reference.hash)) or b"").partition(
            b" "
        )
        return (reference.project_id, int(user_id)) if found.decode() == kind.value else None

    async def registered_password(self, token: str) -> str:
        """The hash of the password that the registration of a token was made with; empty if there was none.
        Raises InvalidInput (INVALID_TOKEN)."""
        found = await self._registrations.password_hash(token)
        if found is None:
            raise invalid_token()
        return found

    async def verify_email(self, token: str) -> None:
        """Spend a token of EMAIL_VERIFICATION: its registration is the user. Raises InvalidInput
        (INVALID_TOKEN)."""
        if not await self._registrations.verify(token):
            raise invalid_token()

    async def reset_password(self, token: str, password_hash: str, posting: Posting | None = None) -> None:
        """Spend a token of PASSWORD_RESET: its user has the new password, is verified, and has no session.

        In this order: the sessions end, then password and token change in one step, which happens only if
        there is no session. After a crash in between the token is still good. Raises InvalidInput
        (INVALID_TOKEN).
        """
        for _ in range(ATTEMPTS):
            answer = await self._redeem(token, password_hash, posting)
            if answer == "ok":
                return
            holder = await self.holder(token, ProofKind.PASSWORD_RESET)
            if answer != "moved" or holder is None:
                raise invalid_token()
            await self._sessions.end_all(*holder)
        raise retries_exhausted("user")

    async def _redeem(self, token: str, password_hash: str, posting: Posting | None) -> str:
        kind = ProofKind.PASSWORD_RESET
        holder, reference = await self.holder(token, kind), tokens.parse(token)
        if holder is None or reference is None:
            return "wrong"
        slot, user_id = ProjectSlot(reference.project_id), holder[1]
        answer = await self._database.change(
            REDEEM_TOKEN,
            slot,
            [
                slot.user(user_id), slot.user_proofs(user_id), slot.proof(reference.hash),
                slot.user_sessions(user_id), slot.users, slot.user_registrations(user_id),
                slot.unverified_users, slot.invited_users,
            ],
            [user_id, kind.value, reference.hash, self._database.now_ms(), password_hash,
             *(posting or ("", ""))],
        )  # fmt: skip
        if answer[0] in ("wrong", "moved"):
            return answer[0]
        require_ok(answer, project=reference.project_id)
        return "ok"


def _redeemed(answer: list[str]) -> bool:
    if answer[0] == "wrong":
        return False
    require_ok(answer)
    return True


def invalid_token() -> InvalidInput:
    """The error of a token that is good for nothing."""
    return InvalidInput("token", "is unknown, used or too old", reason="INVALID_TOKEN")


_LENGTHEN: Final = """
-- The proofs of a user live as long as the longest of them.
local function lengthen(lifetime)
  if redis.call('PTTL', KEYS[4]) < tonumber(lifetime) then redis.call('PEXPIRE', KEYS[4], lifetime) end
end
local function registered()
  local user = redis.call('HMGET', KEYS[3], 'created', 'invited', 'pending')
  return user[1] and (user[2] ~= '1' or user[3] == '1')
end
"""

ISSUE_TOKEN: Final = changing(
    f"""
-- KEYS: …, user, proofs of the user, token that it replaces, token
-- ARGV: user id, kind, hash that it replaces or nothing, hash, lifetime in ms, 1 if it is for nobody,
--       queue and letter that tell it
{_LENGTHEN}
if not registered() and ARGV[6] ~= '1' then return {{'unknown', 'user'}} end
if (redis.call('HGET', KEYS[4], ARGV[2]) or '') ~= ARGV[3] then return {{'moved'}} end
redis.call('UNLINK', KEYS[5])
redis.call('HSET', KEYS[4], ARGV[2], ARGV[4])
redis.call('SET', KEYS[6], ARGV[2] .. ' ' .. ARGV[1], 'PX', ARGV[5])
lengthen(ARGV[5])
queue_message(ARGV[7], ARGV[8])
return unannounced('token_issued')
""",
    sends=True,
)

ISSUE_CODE: Final = changing(
    f"""
-- KEYS: …, user, proofs of the user. ARGV: hash, expires, lifetime in ms, queue and letter that tell it
{_LENGTHEN}
if not registered() then return {{'unknown', 'user'}} end
redis.call('HSET', KEYS[4], 'code', ARGV[1], 'code_expires', ARGV[2], 'code_tries', '0')
lengthen(ARGV[3])
queue_message(ARGV[4], ARGV[5])
return unannounced('code_issued')
""",
    sends=True,
)

REDEEM_CODE: Final = removing(f"""
{VERIFYING}
-- KEYS: …, user, proofs of the user, users, registrations of the user, unverified users, invited users
-- ARGV: hash, now, most tries, user id
-- A try counts before it is looked at, and the last one takes the code away.
local code = redis.call('HMGET', KEYS[4], 'code', 'code_expires')
if not code[1] or tonumber(code[2]) <= tonumber(ARGV[2]) then return {{'wrong'}} end
local right = code[1] == ARGV[1]
if right or redis.call('HINCRBY', KEYS[4], 'code_tries', 1) >= tonumber(ARGV[3]) then
  redis.call('HDEL', KEYS[4], 'code', 'code_expires', 'code_tries')
end
if not right or redis.call('EXISTS', KEYS[3]) == 0 then return {{'wrong'}} end
verified(KEYS[3], ARGV[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
return unannounced('code_redeemed')
""")

REDEEM_TOKEN: Final = removing(
    f"""
{VERIFYING}
-- KEYS: …, user, proofs of the user, token, sessions of the user, users, registrations of the user,
--       unverified users, invited users
-- ARGV: user id, kind, hash, now, new password's hash, queue and letter that tell the user
-- Whoever has the token reads the mail of that address. A new password is set only when no session is left.
if redis.call('GET', KEYS[5]) ~= ARGV[2] .. ' ' .. ARGV[1] or redis.call('HGET', KEYS[4], ARGV[2]) ~= ARGV[3]
  or redis.call('EXISTS', KEYS[3]) == 0 then return {{'wrong'}} end
if redis.call('ZCOUNT', KEYS[6], '(' .. ARGV[4], '+inf') > 0 then return {{'moved'}} end
redis.call('HSET', KEYS[3], 'password', ARGV[5])
-- Who was invited, and registered more than once, has no name yet: the newest registration gives one.
local newest = redis.call('ZRANGE', KEYS[8], -1, -1)[1]
if newest and redis.call('HGET', KEYS[3], 'name') == '' then
  redis.call('HSET', KEYS[3], 'name', string.match(newest, '^%S+ %S+ (.*)$'))
end
verified(KEYS[3], ARGV[1], KEYS[7], KEYS[8], KEYS[9], KEYS[10])
redis.call('UNLINK', KEYS[5])
redis.call('HDEL', KEYS[4], ARGV[2])
queue_message(ARGV[6], ARGV[7])
return unannounced('token_redeemed')
""",
    sends=True,
)


CHANGE_CODE_DIGITS: Final = 8
"""More than of a code to sign in: a user who holds a key may ask for one after the other."""
CHANGE_CODE_TRIES: Final = 5
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
        slot, code = (
            ProjectSlot(user.project_id),
            f"{secrets.randbelow(10**CHANGE_CODE_DIGITS):0{CHANGE_CODE_DIGITS}}",
        )
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
                    user.id, _hash(user, code), self._database.now_ms(), CHANGE_CODE_TRIES, session_id,
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
