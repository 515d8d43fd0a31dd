"""Messages, and the country calling codes that SMS are sent to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol


class MessageKind(StrEnum):
    """Why a message is sent."""

    EMAIL_VERIFICATION = "emailVerification"
    PASSWORD_RESET = "passwordReset"  # noqa: S105 (the name of a kind)
    INVITATION = "invitation"
    """A user was added to a home of an e-mail project."""
    PASSWORD_CHANGED = "passwordChanged"  # noqa: S105 (the name of a kind)
    EMAIL_CHANGE = "emailChange"
    """A code, to the new address of a user."""
    EMAIL_CHANGED = "emailChanged"
    """A notice to the old address."""
    PHONE_CHANGE = "phoneChange"
    """A code by SMS, to the new number of a user."""
    PHONE_CHANGED = "phoneChanged"
    SIGN_IN_CODE = "signInCode"


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one recipient. `code` and `token` are secrets: neither the repr nor a log has them."""

    project_id: int
    kind: MessageKind
    to: str
    """An e-mail address, or a phone number in the form of E.164."""
    code: str = ""
    token: str = ""
    home_name: str = ""
    """The home of an invitation."""
    good_until_ms: int = 0
    """Expiry of code or token, in ms since 1970. An expired message is not sent. 0: it never expires."""

    def __repr__(self) -> str:
        return f"Message({self.kind}, project {self.project_id})"


class OutboxQueue(StrEnum):
    """The queue that a message goes to."""

    MAIL = "mail"
    SMS = "sms"
    STORED = "kept"
    """No sender is configured: `homewire messages` shows it."""


class OutboxMessage(NamedTuple):
    """A message as the change that causes it writes it to the transactional outbox."""

    queue: OutboxQueue
    sealed: str
    """An encrypted `QueuedMessage` (`messages/queue.py`)."""


class Messages(Protocol):
    """Prepares messages for a change of the store; `MessageOutbox` implements it."""

    async def require_room(self, kind: MessageKind) -> None:
        """Check before a change that its message fits into the queue. Raises Unavailable."""

    def prepare(self, message: Message) -> OutboxMessage:
        """Seal a message for the transactional outbox. It is delivered once the change is made.

        The time does not tell whether there is a recipient. A message with an empty `to` goes the same way,
        and the worker drops it.
        """


BY_SMS: Final = frozenset({MessageKind.PHONE_CHANGE, MessageKind.PHONE_CHANGED, MessageKind.SIGN_IN_CODE})


class Channel(StrEnum):
    """How a message is sent."""

    MAIL = "mail"
    SMS = "sms"

    @classmethod
    def of(cls, kind: MessageKind) -> Channel:
        """The channel of a kind of message."""
        return cls.SMS if kind in BY_SMS else cls.MAIL


NO_COUNTRY: Final = frozenset({800, 808, 870, 878, 881, 882, 883, 888, 979})
"""Codes of satellite phones and global services. They belong to no country and cost most."""
DIGITS: Final = 3


def listed_codes(text: str) -> frozenset[int]:
    """Parse a list like ``49,43,1``; an empty text is an empty list. Raises ValueError."""
    words = [word.strip().removeprefix("+") for word in text.split(",")] if text.strip() else []
    if not all(word.isascii() and word.isdigit() and 0 < len(word) <= DIGITS for word in words):
        raise ValueError("not a list of country calling codes")
    return frozenset(map(int, words))


def calling_code(phone: str) -> int:
    """The country calling code of a number in the form of E.164."""
    # Imported at use: it costs every CLI command 100 ms otherwise.
    import phonenumbers

    return phonenumbers.parse(phone, None).country_code or 0


def may_be_sent_to(phone: str, listed: frozenset[int]) -> bool:
    """Whether an SMS may go to a number: with a listed code, or, if none is listed, of any country."""
    code = calling_code(phone)
    return code in listed if listed else code not in NO_COUNTRY
