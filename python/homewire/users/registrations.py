"""Registrations by e-mail that are not verified: they reserve nothing.

An address may be registered again until it is verified. All its registrations share one user id; each has a
token of its own, which its password and name are bound to. The token that is used makes its registration the
user, and ends the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from homewire.auth import tokens
from homewire.errors import Conflict, UnknownRecord
from homewire.settings import Settings
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, lua, removing
from homewire.users.deletion import UserDeletion
from homewire.users.models import (
    MessageFactory,
    NewProof,
    PendingVerification,
    ProofKind,
    User,
    message_arguments,
    new_token,
)

NO_PASSWORD: Final = "-"  # noqa: S105 (a mark)
"""In the place of a password's hash, in what is kept of a registration."""
REGISTER_AGAIN: Final = changing(lua(__package__, "register_again"), sends=True)
ISSUE_VERIFICATION: Final = changing(lua(__package__, "issue_verification"), sends=True)
VERIFY_EMAIL: Final = removing(lua(__package__, "verify_email"))

SWEEP_PAGE: Final = 100
"""Users that one read of the sweep finds."""


class RegistrationLimits(NamedTuple):
    """How many registrations an address may have, and how old unverified and invited users may get (ms)."""

    registrations: int = 20
    unverified_ms: int = 7 * 86_400_000
    invited_ms: int = 30 * 86_400_000

    @classmethod
    def of(cls, settings: Settings) -> RegistrationLimits:
        """The limits of the settings."""
        return cls(
            settings.address_registrations,
            round(settings.unverified_user_s * 1000),
            round(settings.invitation_s * 1000),
        )


DEFAULT_REGISTRATION_LIMITS: Final[RegistrationLimits] = RegistrationLimits()


class SeveralRegistrations(Conflict):
    """An address has several registrations, or none that is still valid, so that no token can be issued."""

    def __init__(self) -> None:
        super().__init__("USER_EXISTS_UNVERIFIED", "the address was registered several times, or long ago")


class Registrations:
    """The registrations by e-mail of a project's addresses, until one of them is verified."""

    def __init__(self, database: Database, deletion: UserDeletion, ages: RegistrationLimits) -> None:
        self._database = database
        self._deletion = deletion
        self.ages: Final = ages

    async def again(
        self, holder: User, user: User, password_hash: str, verification: PendingVerification
    ) -> User | None:
        """Add a registration to the address of `holder`, and return the user that it becomes once verified.

        Returns None if the address no longer belongs to the holder, or is verified.
        """
        slot, now, email = ProjectSlot(holder.project_id), self._database.now_ms(), user.email or ""
        proof = new_token(holder.project_id, ProofKind.EMAIL_VERIFICATION)
        answer = await self._database.change(
            REGISTER_AGAIN,
            slot,
            [slot.user(holder.id), slot.user_registrations(holder.id), slot.proof(proof.hash)],
            [
                holder.id, email.lower(), proof.hash, now + verification.lifetime_ms,
                verification.lifetime_ms, password_hash, user.name, now, self.ages.registrations,
                *message_arguments(verification.make_message, proof.secret),
            ],
        )  # fmt: skip
        if answer[0] == "moved":
            return None
        require_ok(answer, project=holder.project_id)
        return replace(user, id=holder.id, created_ms=holder.created_ms)

    async def issue(
        self,
        project_id: int,
        user_id: int,
        lifetime_ms: int,
        make_message: MessageFactory | None,
        *,
        decoy: bool = False,
    ) -> str:
        """Issue a new token for the only registration of a user. It replaces the one before.

        Raises UnknownRecord for a user who is verified or never registered, and SeveralRegistrations.
        """
        slot, now = ProjectSlot(project_id), self._database.now_ms()
        proof: NewProof = new_token(project_id, ProofKind.EMAIL_VERIFICATION)
        answer = await self._database.change(
            ISSUE_VERIFICATION,
            slot,
            [
                slot.user(user_id), slot.user_registrations(user_id), slot.proof(proof.hash),
                slot.unverified_users,
            ],
            [
                user_id, proof.hash, now + lifetime_ms, lifetime_ms, now, int(decoy),
                *message_arguments(make_message, proof.secret),
            ],
        )  # fmt: skip
        if answer[0] == "several":
            raise SeveralRegistrations
        require_ok(answer, project=project_id, user=user_id)
        return proof.secret

    async def password_hash(self, token: str) -> str | None:
        """The hash of the password that a registration was made with, empty if it was made without one; None
        if the token is not good."""
        found = await self._holder(token)
        if found is None:
            return None
        reference, user_id = found
        registrations = ProjectSlot(reference.project_id).user_registrations(user_id)
        now = self._database.now_ms()
        for entry in await self._database.read("ZRANGEBYSCORE", registrations, f"({now}", "+inf"):
            token_hash, stored, _ = entry.decode().split(" ", 2)
            if token_hash == reference.hash:
                return "" if stored == NO_PASSWORD else stored
        return None

    async def _holder(self, token: str) -> tuple[tokens.TokenReference, int] | None:
        reference = tokens.parse(token)
        if reference is None:
            return None
        proof = ProjectSlot(reference.project_id).proof(reference.hash)
        kind, _, user_id = (await self._database.read("GET", proof) or b"").decode().partition(" ")
        return (reference, int(user_id)) if kind == ProofKind.EMAIL_VERIFICATION.value else None

    async def verify(self, token: str) -> bool:
        """Spend a token: its registration is the user now. Whether it was good."""
        found = await self._holder(token)
        if found is None:
            return False
        reference, user_id = found
        slot = ProjectSlot(reference.project_id)
        answer = await self._database.change(
            VERIFY_EMAIL,
            slot,
            [
                slot.user(user_id), slot.user_registrations(user_id), slot.proof(reference.hash),
                slot.users, slot.unverified_users, slot.invited_users,
            ],
            [user_id, reference.hash, self._database.now_ms()],
        )  # fmt: skip
        if answer[0] == "wrong":
            return False
        require_ok(answer, project=reference.project_id)
        return True

    async def sweep(self, project_id: int) -> None:
        """Delete users whose registration or invitation has expired."""
        slot = ProjectSlot(project_id)
        for index, age_ms in (
            (slot.unverified_users, self.ages.unverified_ms),
            (slot.invited_users, self.ages.invited_ms),
        ):
            await self._sweep(project_id, index, self._database.now_ms() - age_ms)

    async def _sweep(self, project_id: int, index: str, since_ms: int) -> None:
        while True:
            found = await self._database.read(
                "ZRANGEBYSCORE", index, "-inf", since_ms, "LIMIT", 0, SWEEP_PAGE
            )
            for user_id in map(int, found):
                try:
                    await self._deletion.delete(project_id, user_id, only_unverified=True)
                except UnknownRecord:
                    await self._database.write("ZREM", index, user_id)
            if len(found) < SWEEP_PAGE:
                return
