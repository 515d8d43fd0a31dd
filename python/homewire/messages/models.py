"""Records of messages."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class PostingQueue(StrEnum):
    """Where messages to people wait."""

    MAIL = "mail"
    SMS = "sms"
    KEPT = "kept"
    """Nothing carries them."""


class Posting(NamedTuple):
    """A message to somebody, as the change that causes it writes it down."""

    queue: PostingQueue
    sealed: str
    """A letter (`messages/message.py`)."""
