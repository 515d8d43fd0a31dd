"""What a PATCH may say of fields that cannot be changed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from homewire.api.patching import changes
from homewire.errors import InvalidInput

Maybe = msgspec.UNSET


class Shown(msgspec.Struct, kw_only=True):
    id: int = 7
    name: str = "lamp"
    creation_time: str = "2026-11-21T17:43:09.000Z"
    home_id: int | None = None


class Patch(msgspec.Struct, kw_only=True, rename="camel"):
    id: int | msgspec.UnsetType = Maybe
    name: str | msgspec.UnsetType = Maybe
    creation_time: str | msgspec.UnsetType | None = Maybe
    home_id: int | msgspec.UnsetType | None = Maybe


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"name": "n"}, {"name": "n"}),
        ({"name": "lamp"}, {"name": "lamp"}),
        ({"id": 7, "name": "n", "creationTime": "2026-11-21T17:43:09.000Z", "homeId": None}, {"name": "n"}),
        ({"creationTime": "2026-11-21T17:43:09Z"}, {}),
        ({"creationTime": "2026-11-21T18:43:09+01:00"}, {}),
        ({"unknown": 1}, {}),
    ],
)
def test_what_is_as_it_was_is_accepted(given: dict[str, Any], changed: dict[str, Any]) -> None:
    assert changes(msgspec.convert(given, Patch), Shown(), ("name",)) == changed


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"id": 8}, "id"),
        ({"homeId": 1}, "homeId"),
        ({"creationTime": "2026-11-21T17:43:10Z"}, "creationTime"),
        ({"creationTime": "2026-11-21T17:43:09"}, "creationTime"),
        ({"creationTime": None, "name": "n"}, "creationTime"),
    ],
)
def test_another_value_is_refused_by_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        changes(msgspec.convert(given, Patch), Shown(), ("name",))
    assert refused.value.data["field"] == field
