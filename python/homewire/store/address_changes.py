"""New e-mail addresses and phone numbers of users: they count when their user has proven them by a code."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from homewire.errors import UnknownRecord
from homewire.model import AccountSystem, Posting, User
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.proofs import Saying
from homewire.store.scripts.address_changes import BEGIN_CHANGE, FINISH_CHANGE
from homewire.store.sessions import Sessions
from homewire.store.users import Users, taken

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

    async def begin(self, user: User, address: str, lifetime_ms: int, saying: Saying) -> None:
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
        raise outrun("user")

    async def _require_free(self, user: User, answer: list[str]) -> None:
        if answer[0] == "held":
            holder = await self._users.get_any(user.project_id, int(answer[1]))
            if holder is None:
                raise outrun("user")
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
