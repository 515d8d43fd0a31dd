"""Proofs of addresses: tokens in e-mails, codes in SMS, and changes of an address or number.

Only the hash of a secret is stored. A secret works once and for a limited time; a new one replaces the
earlier one of its kind. A new address or number counts once its user has proven it by a code.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from homewire.auth import tokens
from homewire.errors import InvalidInput, UnknownRecord
from homewire.messages.models import OutboxMessage
from homewire.projects.models import AccountSystem
from homewire.sessions.store import Sessions
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, lua, removing
from homewire.users.deletion import NO_KEY
from homewire.users.models import (
    MessageFactory,
    ProofKind,
    User,
    code_hash,
    message_arguments,
    new_code,
    new_token,
)
from homewire.users.registrations import Registrations
from homewire.users.store import Users, taken

ISSUE_TOKEN: Final = changing(lua(__package__, "issue_token"), sends=True)
ISSUE_CODE: Final = changing(lua(__package__, "issue_code"), sends=True)
REDEEM_CODE: Final = removing(lua(__package__, "redeem_code"))
REDEEM_TOKEN: Final = removing(lua(__package__, "redeem_token"), sends=True)
BEGIN_CHANGE: Final = changing(lua(__package__, "begin_address_change"), sends=True)
FINISH_CHANGE: Final = removing(lua(__package__, "finish_address_change"), sends=True)

CODE_TRIES: Final = 5
"""Wrong tries after which a code is invalid: the chance to guess it is 1 in 200,000."""
DECOY_MS: Final = 1000


class Verifications:
    """The codes and tokens of the users of a project. What a `make_message` makes of one goes out with it."""

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
        make_message: MessageFactory | None = None,
    ) -> str:
        """A new token, which is not stored. The one before it becomes invalid.

        Raises UnknownRecord, and for EMAIL_VERIFICATION Several (`users/registrations.py`).
        """
        if kind is ProofKind.EMAIL_VERIFICATION:
            return await self._registrations.issue(project_id, user_id, lifetime_ms, make_message)
        return await self._issue_token(project_id, user_id, kind, lifetime_ms, make_message)

    async def issue_decoy(self, project_id: int, kind: ProofKind, make_message: MessageFactory) -> None:
        """Issue a token without a user, so that an unknown address takes as long. It expires at once."""
        decoy_id = -secrets.randbits(62)
        if kind is ProofKind.EMAIL_VERIFICATION:
            await self._registrations.issue(project_id, decoy_id, DECOY_MS, make_message, decoy=True)
            return
        await self._issue_token(project_id, decoy_id, kind, DECOY_MS, make_message, decoy=True)

    async def _issue_token(
        self,
        project_id: int,
        user_id: int,
        kind: ProofKind,
        lifetime_ms: int,
        make_message: MessageFactory | None,
        *,
        decoy: bool = False,
    ) -> str:
        slot, proof = ProjectSlot(project_id), new_token(project_id, kind)
        message = message_arguments(make_message, proof.secret)
        for _ in range(ATTEMPTS):
            before = await self._database.read("HGET", slot.user_proofs(user_id), kind.value)
            replaced = before.decode() if before else ""
            answer = await self._database.change(
                ISSUE_TOKEN,
                slot,
                [
                    slot.user(user_id), slot.user_proofs(user_id),
                    slot.proof(replaced or NO_KEY), slot.proof(proof.hash),
                ],
                [user_id, kind.value, replaced, proof.hash, lifetime_ms, int(decoy), *message],
            )  # fmt: skip
            if answer[0] != "moved":
                require_ok(answer, project=project_id, user=user_id)
                return proof.secret
        raise retries_exhausted("user")

    async def issue_code(
        self, project_id: int, user_id: int, lifetime_ms: int, make_message: MessageFactory | None = None
    ) -> str:
        """A new sign-in code, decimal digits. The one before it becomes invalid. Raises UnknownRecord."""
        slot, proof = ProjectSlot(project_id), new_code(project_id, user_id)
        expires_ms = self._database.now_ms() + lifetime_ms
        answer = await self._database.change(
            ISSUE_CODE,
            slot,
            [slot.user(user_id), slot.user_proofs(user_id)],
            [proof.hash, expires_ms, lifetime_ms, *message_arguments(make_message, proof.secret)],
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

    async def reset_password(
        self, token: str, password_hash: str, message: OutboxMessage | None = None
    ) -> None:
        """Spend a token of PASSWORD_RESET: its user has the new password, is verified, and has no session.

        In this order: the sessions end, then password and token change in one step, which happens only if
        there is no session. After a crash in between the token is still good. Raises InvalidInput
        (INVALID_TOKEN).
        """
        for _ in range(ATTEMPTS):
            answer = await self._redeem(token, password_hash, message)
            if answer == "ok":
                return
            holder = await self.holder(token, ProofKind.PASSWORD_RESET)
            if answer != "moved" or holder is None:
                raise invalid_token()
            await self._sessions.end_all(*holder)
        raise retries_exhausted("user")

    async def _redeem(self, token: str, password_hash: str, message: OutboxMessage | None) -> str:
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
             *(message or ("", ""))],
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
    return InvalidInput("token", "is unknown, used or expired", reason="INVALID_TOKEN")


CHANGE_CODE_DIGITS: Final = 8
"""More than a sign-in code has: a user with a key may request any number of them."""
CHANGE_CODE_TRIES: Final = 5
"""Wrong tries after which the code is invalid."""


class AddressChanges:
    """Changes the e-mail address or phone number that identifies a user."""

    def __init__(self, database: Database, sessions: Sessions, users: Users) -> None:
        self._database = database
        self._sessions = sessions
        self._users = users

    async def begin(self, user: User, address: str, lifetime_ms: int, make_message: MessageFactory) -> None:
        """Send a code to a new address, which is in its normal form. The code before it becomes invalid.

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
                self._database.now_ms() + lifetime_ms, lifetime_ms, *make_message(code),
            ],
        )  # fmt: skip
        await self._require_free(user, answer)

    async def finish(self, user: User, code: str, session_id: str, message: OutboxMessage) -> bool:
        """Whether the code is right. If so, the new address is stored and the user's other sessions have
        ended.

        `message` is the notice to the old address. Raises the errors of `begin`.
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
                    _system(user).value, *message,
                ],
            )  # fmt: skip
            if answer[0] == "wrong":
                return False
            if answer[0] != "moved":
                await self._require_free(user, answer)
                return True
            await self._sessions.end_all(user.project_id, user.id, except_id=session_id)
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
    """The account system of the user's address. Raises UnknownRecord for a user without one."""
    if user.email is None and user.phone is None:
        raise UnknownRecord("address of user", user.id)
    return AccountSystem.EMAIL if user.email is not None else AccountSystem.PHONE


def _hash(user: User, code: str) -> str:
    return hashlib.sha256(f"{user.project_id}.{user.id}.{code}".encode("utf-8", "replace")).hexdigest()
