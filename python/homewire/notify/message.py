"""What is said to people: one message, whatever carries it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from homewire.model import Posting


class MessageKind(StrEnum):
    """Why somebody is written to."""

    EMAIL_VERIFICATION = "emailVerification"
    PASSWORD_RESET = "passwordReset"  # noqa: S105 (the name of a kind)
    INVITATION = "invitation"
    """Somebody was added to a home of an e-mail project."""
    PASSWORD_CHANGED = "passwordChanged"  # noqa: S105 (the name of a kind)
    EMAIL_CHANGE = "emailChange"
    """A code, to the address that a user wants to be known by."""
    EMAIL_CHANGED = "emailChanged"
    """To the address before."""
    PHONE_CHANGE = "phoneChange"
    """By SMS, like the next two."""
    PHONE_CHANGED = "phoneChanged"
    SIGN_IN_CODE = "signInCode"


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one person. `code` and `token` are secrets: they stand in no repr and no log."""

    project_id: int
    kind: MessageKind
    to: str
    """An e-mail address, or a phone number in the form of E.164."""
    code: str = ""
    token: str = ""
    home_name: str = ""
    """Of an invitation."""
    good_until_ms: int = 0
    """In ms since 1970; sent no more from then on, for code or token are worthless. 0: it never expires."""

    def __repr__(self) -> str:
        return f"Message({self.kind}, project {self.project_id})"


class Messages(Protocol):
    """Whoever carries messages."""

    async def require_room(self, kind: MessageKind) -> None:
        """Before a change that somebody is written to because of. Raises Unavailable."""

    def posting(self, message: Message) -> Posting:
        """What a change of the store takes along: once it is made, the message is delivered.

        The time this takes does not depend on the recipient. One that is to nobody (`to` empty) takes the
        same way, as long, and is dropped at its end.
        """
