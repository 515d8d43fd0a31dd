"""Clients send whole objects: what a PATCH cannot change may be there as it is, and zero values mean nothing.

Clients in Go fill what they have nothing to say about with the zero value of its type: "", 0, the year 1.
(Also false; but that is a value like true, which can be meant.) Where a zero value cannot be meant, it counts
as absent: `is_zero` is the one rule, of `changes` for PATCH and of `WholeObject` for POST.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from homewire.errors import InvalidInput


def is_zero(value: object) -> bool:
    """Whether a value is what clients send for nothing: "", 0, a time of the year 1."""
    if isinstance(value, str):
        moment = _moment(value)
        return not value or (moment is not None and moment.year == 1)
    return type(value) is int and value == 0


class WholeObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A body whose optional members may have the zero value of their type: it is the default then.

    Such an integer member allows 0 in its type.
    """

    def __post_init__(self) -> None:
        """Put the defaults in place of zero values."""
        # The defaults are those of the last members.
        optional = zip(reversed(self.__struct_fields__), reversed(self.__struct_defaults__), strict=False)
        for name, default in optional:
            value = getattr(self, name)
            if default is not msgspec.NODEFAULT and is_zero(value):
                msgspec.structs.force_setattr(self, name, default)


def changes(body: msgspec.Struct, shown: msgspec.Struct, mutable: Collection[str]) -> dict[str, Any]:
    """What a PATCH changes, by the names of `body`'s fields: those of `mutable` that it gives.

    `shown` is the object as answers show it. Raises InvalidInput, naming it, for another field whose value
    is neither the one shown nor zero (`is_zero`). Fields that `body` does not have are ignored, as unknown
    ones are everywhere.
    """
    given = {
        name: getattr(body, name)
        for name in body.__struct_fields__
        if getattr(body, name) is not msgspec.UNSET
    }
    for name, value in given.items():
        if name not in mutable and not is_zero(value) and not same(value, getattr(shown, name, None)):
            raise InvalidInput(_spelled(body, name), "cannot be changed")
    return {name: value for name, value in given.items() if name in mutable}


def same(given: object, stored: object) -> bool:
    """Whether a client means what is stored: null is what is not there, a time is a moment."""
    if given == stored:
        return True
    if isinstance(given, str) and isinstance(stored, str):
        moment = _moment(given)
        return moment is not None and moment == _moment(stored)
    return False


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _spelled(body: msgspec.Struct, name: str) -> str:
    fields = zip(body.__struct_fields__, body.__struct_encode_fields__, strict=True)
    return dict(fields)[name]
