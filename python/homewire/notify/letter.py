"""A message as it lies in Redis: sealed, for codes and tokens are secrets, and so are addresses."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from homewire.errors import ConfigurationError
from homewire.notify.message import Message, MessageKind
from homewire.sealing import Sealer

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
class Letter:
    """A message on its way, and what does not change from try to try."""

    id: str
    """What a receiver may know a repetition by."""
    message: Message
    base_url: str
    """Under which this homewire is reached by whoever gets the message."""

    def __repr__(self) -> str:
        return f"Letter({self.id}, {self.message})"

    @classmethod
    def new(cls, message: Message, base_url: str) -> Letter:
        """A letter that nobody has seen yet."""
        return cls(secrets.token_hex(16), message, base_url)

    def sealed(self, sealer: Sealer) -> str:
        """As it may be written to Redis. Raises ConfigurationError."""
        return sealer.seal(_encode(self).decode())

    @classmethod
    def opened(cls, sealed: str, sealer: Sealer) -> Letter:
        """What `sealed` made. Raises ConfigurationError for what this deployment did not seal."""
        try:
            return _decode(sealer.open(sealed))
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                "a stored message is of a version that this homewire can't read"
            ) from error


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Letter).decode
