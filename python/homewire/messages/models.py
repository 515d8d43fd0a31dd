"""Kinds of messages, and the country calling codes that SMS are sent to."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


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
    """An encrypted `QueuedMessage` (`messages/message.py`)."""


NO_COUNTRY: Final = frozenset({800, 808, 870, 878, 881, 882, 883, 888, 979})
"""Codes of satellites and of worldwide services, which cost most and belong to no country."""
DIGITS: Final = 3


def listed_codes(text: str) -> frozenset[int]:
    """The codes of a list like ``49,43,1``; none for an empty one. Raises ValueError."""
    words = [word.strip().removeprefix("+") for word in text.split(",")] if text.strip() else []
    if not all(word.isascii() and word.isdigit() and 0 < len(word) <= DIGITS for word in words):
        raise ValueError("not a list of country calling codes")
    return frozenset(map(int, words))


def calling_code(phone: str) -> int:
    """That of a number in the form of E.164."""
    # Imported at use: it costs every CLI command 100 ms otherwise.
    import phonenumbers

    return phonenumbers.parse(phone, None).country_code or 0


def may_be_sent_to(phone: str, listed: frozenset[int]) -> bool:
    """Whether an SMS may go to a number: of the listed codes, or where none is listed, of any country."""
    code = calling_code(phone)
    return code in listed if listed else code not in NO_COUNTRY
