"""What people are sent to prove with that an address is theirs, at the moment that it is made."""

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
"""The kind of proof that is no token."""

MessageFactory: TypeAlias = Callable[[str], OutboxMessage]
"""The message that tells somebody a secret. It is written down by the script that makes the secret count."""


class ProofKind(StrEnum):
    """What a token is good for."""

    EMAIL_VERIFICATION = "emailVerification"
    PASSWORD_RESET = "passwordReset"  # noqa: S105 (the name of a kind)


@dataclass(frozen=True, slots=True)
class PendingVerification:
    """Somebody who registers is told a code or token, that is good for so long."""

    lifetime_ms: int
    make_message: MessageFactory


@dataclass(frozen=True, slots=True)
class NewProof:
    """A secret, and what is stored of it."""

    kind: str
    secret: str = field(repr=False)
    hash: str


def new_token(project_id: int, kind: ProofKind) -> NewProof:
    """A token of a project."""
    token, reference = tokens.mint(project_id)
    return NewProof(kind.value, token, reference.hash)


def new_code(project_id: int, user_id: int) -> NewProof:
    """A sign-in code, decimal digits."""
    code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
    return NewProof(CODE, code, code_hash(project_id, user_id, code))


def code_hash(project_id: int, user_id: int, code: str) -> str:
    """What is stored of a code. Of so few digits no hash hides what it was made of; its short life does."""
    return hashlib.sha256(f"{project_id}.{user_id}.{code}".encode("utf-8", "replace")).hexdigest()


def posted(make_message: MessageFactory | None, secret: str) -> tuple[str, str]:
    """The last arguments of a script that tells somebody a secret; None: it tells nobody."""
    return ("", "") if make_message is None else make_message(secret)
