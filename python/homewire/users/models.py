"""Records of users, and the tokens and codes that prove the ownership of an address."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from homewire.auth import tokens
from homewire.messages.models import OutboxMessage

CODE_DIGITS: Final = 6
CODE: Final = "code"
"""The kind of a sign-in code. The other kinds are tokens."""

MessageFactory: TypeAlias = Callable[[str], OutboxMessage]
"""Makes the message with a secret. The script that stores the hash of the secret also queues the message."""


@dataclass(frozen=True, slots=True)
class User:
    """An end-user of a project, registered unless `invited` (spec 001, *Users*)."""

    id: int
    project_id: int
    name: str
    created_ms: int
    email: str | None = None
    phone: str | None = None
    verified: bool = False
    external_key: str | None = None
    """The user's id in the account system of a BYOU project."""
    invited: bool = False
    """Added to a home and not registered yet: visible to the members of that home only."""
    ui_time_zone: str = "UTC"
    """The time zone in which times are displayed to the user, of the IANA database."""
    last_login_ms: int = 0
    """When a session was last opened; 0: never."""
    last_failed_login_ms: int = 0
    """When a login as this user last failed, in ms since 1970; 0: never."""
    pending: bool = False
    """Invited, and registered since; no registration is verified."""

    @property
    def registering(self) -> bool:
        """Whether the address was registered and is to be verified."""
        return not self.verified and (not self.invited or self.pending)


class ProofKind(StrEnum):
    """The purpose of a token."""

    EMAIL_VERIFICATION = "emailVerification"
    PASSWORD_RESET = "passwordReset"  # noqa: S105 (the name of a kind)


@dataclass(frozen=True, slots=True)
class PendingVerification:
    """A code or token that a registration sends, valid for `lifetime_ms`."""

    lifetime_ms: int
    make_message: MessageFactory


@dataclass(frozen=True, slots=True)
class NewProof:
    """A secret, and the hash that is stored of it."""

    kind: str
    secret: str = field(repr=False)
    hash: str


def new_token(project_id: int, kind: ProofKind) -> NewProof:
    """Create a token of a project."""
    token, reference = tokens.mint(project_id)
    return NewProof(kind.value, token, reference.hash)


def new_code(project_id: int, user_id: int) -> NewProof:
    """Create a sign-in code of decimal digits."""
    code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
    return NewProof(CODE, code, code_hash(project_id, user_id, code))


def code_hash(project_id: int, user_id: int, code: str) -> str:
    """The stored hash of a code. Few digits can be guessed from it: the short lifetime protects."""
    return hashlib.sha256(f"{project_id}.{user_id}.{code}".encode("utf-8", "replace")).hexdigest()


def message_arguments(make_message: MessageFactory | None, secret: str) -> tuple[str, str]:
    """The last arguments of a script that sends a secret: queue and sealed message; empty with None."""
    return ("", "") if make_message is None else make_message(secret)
