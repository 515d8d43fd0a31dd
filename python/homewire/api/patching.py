"""PATCH: clients send whole objects back, so what cannot be changed may be there, as it is."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from homewire.errors import InvalidInput


def changes(body: msgspec.Struct, shown: msgspec.Struct, mutable: Collection[str]) -> dict[str, Any]:
    """What a PATCH changes, by the names of `body`'s fields: those of `mutable` that it gives.

    `shown` is the object as answers show it. Raises InvalidInput, naming it, for another field whose value
    is not the one shown. Fields that `body` does not have are ignored, as unknown ones are everywhere.
    """
    given = {
        name: getattr(body, name)
        for name in body.__struct_fields__
        if getattr(body, name) is not msgspec.UNSET
    }
    for name, value in given.items():
        if name not in mutable and not same(value, getattr(shown, name, None)):
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
