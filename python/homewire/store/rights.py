"""Rights as texts, and which keys of the store a right is about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from homewire.errors import InvalidInput
from homewire.model import Right, RightKind
from homewire.store.entities import is_id
from homewire.store.keys import ProjectSlot

_SPELLED: Final = ", ".join(f"{kind}:<id>" for kind in RightKind)
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,14}", re.ASCII)
"""Written as it is everywhere: of one right there is one text."""


def parsed(field: str, text: str) -> Right:
    """The right that a text names. Raises InvalidInput, naming `field`."""
    for kind in RightKind:
        subject = text.removeprefix(f"{kind}:")
        if subject != text:
            return Right(kind, _checked(field, kind.noun, subject))
    raise InvalidInput(field, f"must be one of {_SPELLED}")


def stored(text: bytes) -> Right:
    """The same of a text that the store has."""
    action, kind, subject = text.decode().split(":", 2)
    return Right(RightKind(f"{action}:{kind}"), subject)


def of_ids(kind: RightKind, ids: Iterable[int | str]) -> list[str]:
    """The same right for each of these homes, devices or entities, as texts."""
    return [f"{kind}:{each}" for each in ids]


def target(slot: ProjectSlot, right: Right) -> str:
    """The key that exists as long as what a right is about.

    An entity need not be bound for somebody to hold a right to it: then it is the project's.
    """
    match right.kind.noun:
        case "home":
            return slot.home(int(right.subject))
        case "device":
            return slot.device(int(right.subject))
    return slot.project


def _checked(field: str, noun: str, subject: str) -> str:
    if noun == "entity":
        if not is_id(subject):
            raise InvalidInput(field, "must name an entity by 1 to 256 bytes of UTF-8")
    elif not _NUMBER.fullmatch(subject):
        raise InvalidInput(field, f"must name a {noun} by its id, in digits")
    return subject
