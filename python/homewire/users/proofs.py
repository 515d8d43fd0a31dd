"""Tokens and codes that prove the ownership of an address, and the messages that send them."""

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
