"""What a PATCH may say of fields that cannot be changed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from homewire.errors import InvalidInput
from homewire.rest.decoding import WholeObject, changes

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
def test_unchanged_read_only_members_are_accepted(given: dict[str, Any], changed: dict[str, Any]) -> None:
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


@pytest.mark.parametrize(
    "given",
    [
        {"id": 0},
        {"homeId": 0},
        {"creationTime": ""},
        {"creationTime": "0001-01-01T00:00:00Z"},
        {"creationTime": "0001-01-01T00:00:00.000Z"},
        {"id": 0, "homeId": 0, "creationTime": "0001-01-01T00:00:00Z"},
    ],
)
def test_zero_value_counts_as_absent(given: dict[str, Any]) -> None:
    assert changes(msgspec.convert({**given, "name": ""}, Patch), Shown(home_id=3), ("name",)) == {"name": ""}


class Whole(WholeObject, frozen=True, kw_only=True, rename="camel"):
    project_id: int
    user_id: int | None = None
    kind: str = "member"
    seconds: int = 300
    on: bool = True


def test_zero_values_of_a_new_object_are_its_defaults() -> None:
    body = b'{"projectId":0,"userId":0,"kind":"","seconds":0,"on":false}'
    assert msgspec.json.decode(body, type=Whole) == Whole(project_id=0, on=False)
    given = Whole(project_id=1, user_id=2, kind="owner", seconds=1)
    assert (given.user_id, given.kind, given.seconds) == (2, "owner", 1)
