"""What is said to people: one message, whatever carries it.

A message as it lies in Redis: sealed, for codes and tokens are secrets, and so are addresses.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from homewire.errors import ConfigurationError
from homewire.messages.models import Posting
from homewire.sealing import Sealer


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


BY_SMS: Final = frozenset({MessageKind.PHONE_CHANGE, MessageKind.PHONE_CHANGED, MessageKind.SIGN_IN_CODE})


class Channel(StrEnum):
    """How a message reaches somebody."""

    MAIL = "mail"
    SMS = "sms"

    @classmethod
    def of(cls, kind: MessageKind) -> Channel:
        """The channel of a kind of message."""
        return cls.SMS if kind in BY_SMS else cls.MAIL


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message on its way, and what does not change from try to try."""

    id: str
    """What a receiver may know a repetition by."""
    message: Message
    base_url: str
    """Under which this homewire is reached by whoever gets the message."""

    def __repr__(self) -> str:
        return f"Letter({self.id}, {self.message})"

    @classmethod
    def new(cls, message: Message, base_url: str) -> QueuedMessage:
        """A letter that nobody has seen yet."""
        return cls(secrets.token_hex(16), message, base_url)

    def sealed(self, sealer: Sealer) -> str:
        """As it may be written to Redis. Raises ConfigurationError."""
        return sealer.seal(_encode(self).decode())

    @classmethod
    def opened(cls, sealed: str, sealer: Sealer) -> QueuedMessage:
        """What `sealed` made. Raises ConfigurationError for what this deployment did not seal."""
        try:
            return _decode(sealer.open(sealed))
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                "a stored message is of a version that this homewire can't read"
            ) from error


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(QueuedMessage).decode
