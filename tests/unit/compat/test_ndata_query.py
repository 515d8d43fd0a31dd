"""NData questions: what clients may write, what it means, and what is refused by name."""

from __future__ import annotations

import pytest

from homewire.compat.ndata_query import (
    DEVICE_NAME,
    MAX_LENGTH,
    MAX_OPERATIONS,
    MEMBERS,
    OPERATORS,
    USER_NAME,
    Query,
    Row,
    parse,
)
from homewire.errors import InvalidInput

STARTED = 1_691_147_978_015
"""2023-08-04T11:19:38.015Z, as in the example of spec 003."""
ROW = Row(
    "soZIt6uj62fz", "999", "P01", "CashRegister", "Bearer", STARTED, STARTED + 43_200_000, STARTED + 1_965, 2
)


def asked(*parameters: tuple[str, str]) -> bool:
    """Whether the row meets what is asked."""
    return all(condition.holds(ROW) for condition in parse(parameters).conditions)


def refused(name: str, value: str) -> str:
    """The field that the refusal names."""
    with pytest.raises(InvalidInput) as caught:
        parse([(name, value)])
    return str(caught.value.data["field"])


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("sessionId", "soZIt6uj62fz", True),
        ("sessionId", "sozit6uj62fz", False),
        ("SESSIONID", "soZIt6uj62fz", True),
        ("identity.userName", "startswith:9", True),
        ("Identity.UserName", "StartsWith:8", False),
        ("identity.deviceName", "contains:0;endswith:1", True),
        ("identity.deviceName", "contains:0;endswith:0", False),
        ("identity.envName", "in:BackOffice:CashRegister", True),
        ("identity.envName", "nin:BackOffice:CashRegister", False),
        ("identity.envName", "nin:BackOffice", True),
        ("identity.authenticationType", "ne:Cookie", True),
        ("_v", "2", True),
        ("_v", "gt:2", False),
        ("_v", "gte:2;lte:2", True),
        ("_v", "gt:1;lt:3", True),
        ("_v", "in:1:2:3", True),
        ("_V", "-2", False),
        ("_v", "contains:2", True),
        ("identity.userName", "gt:1000", True),
        ("identity.userName", "eq:", False),
        ("identity.userName", "", False),
    ],
)
def test_operators(name: str, value: str, met: bool) -> None:
    assert asked((name, value)) is met


@pytest.mark.parametrize(
    ("value", "met"),
    [
        ("2023-08-04T11:19:38.015Z", True),
        ("2023-08-04T13:19:38.015+02:00", True),
        ("2023-08-04T13:19:38.015 02:00", True),
        ("2023-08-04T05:49:38.0150-0530", True),
        ("2023-08-04t11:19:38.015z", True),
        ("2023-08-04 11:19:38.015", True),
        ("2023-08-04T11:19:38.0150001Z", False),
        ("gt:2023-08-04T11:19:38.0149999Z", True),
        ("lt:2023-08-04T11:19:38.0150001Z", True),
        ("gte:2023-08-04;lt:2023-08-05", True),
        ("gt:2023-08-04T11:19:38", True),
        ("gt:2023-08-04T11:20", False),
        ("in:2023-08-04:2023-08-04T11:19:38.015Z:2023-08-05", True),
        ("in:2023-08-04T11:19:2023-08-05T11:19", False),
        ("nin:2023-08-04T11:19:38.015Z", False),
        ("ne:2023-08-04T11:19:38.015Z", False),
        ("eq:2023-08-04T11:19:38.015Z", True),
        ("startswith:2023-08-04T11:19", True),
        ("contains:11\\:19\\:38", True),
        ("endswith::38.015Z", True),
        ("gt:0001-01-01T00:00:00+23:59", True),
        ("lt:9999-12-31T23:59:59.999999999-23:59", True),
    ],
)
def test_times_are_compared_as_instants(value: str, met: bool) -> None:
    assert asked(("startedAt", value)) is met


def test_member_that_is_named_again_is_asked_more() -> None:
    assert parse([("_v", "gt:0"), ("_V", "lt:50")]).conditions == parse([("_v", "gt:0;lt:50")]).conditions
    assert not asked(("_v", "gt:0"), ("_v", "lt:2"))
    assert asked(("_v", "gt:0"), ("identity.userName", "999"))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("a\\:b", "a:b"),
        ("a\\;b", "a;b"),
        ("a\\\\b", "a\\b"),
        ("DOMAIN\\ada", "DOMAIN\\ada"),
        ("eq:a\\:b", "a:b"),
    ],
)
def test_backslash_makes_a_separator_part_of_a_text(value: str, wanted: str) -> None:
    (condition,) = parse([("identity.userName", value)]).conditions
    assert condition.operand == wanted


@pytest.mark.parametrize(
    ("value", "order"),
    [
        ("startedAt", [("startedAt", False)]),
        ("-startedat", [("startedAt", True)]),
        ("+startedAt", [("startedAt", False)]),
        (" startedAt, _V", [("startedAt", False), ("_v", False)]),
        ("startedAt:DESC,identity.USERNAME:asc", [("startedAt", True), ("identity.userName", False)]),
        ("_v,-_v,_v:desc", [("_v", False)]),
        ("sessionId:asc", [("sessionId", False)]),
    ],
)
def test_directions(value: str, order: list[tuple[str, bool]]) -> None:
    assert [(each.member.name, each.descending) for each in parse([("$sort", value)]).order] == order


def test_repeats_of_sort_merge() -> None:
    assert parse([("$sort", "_v"), ("$SORT", "-startedAt")]) == parse([("$sort", "_v,-startedAt")])


def test_paging() -> None:
    assert parse([]) == Query()
    query = parse([("$skip", "3"), ("$TAKE", "0"), ("$Count", "true")])
    assert (query.skip, query.take, query.count_only) == (3, 0, True)


def test_query_names_the_fields_it_reads() -> None:
    assert parse([("identity.userName", "9")]).needs_names(USER_NAME)
    assert parse([("$sort", "identity.userName")]).needs_names(USER_NAME, DEVICE_NAME)
    assert not parse([("_v", "9"), ("$sort", "startedAt")]).needs_names(USER_NAME)


@pytest.mark.parametrize("member", [member.name for member in MEMBERS])
@pytest.mark.parametrize("value", ["near:1", "eq:1:2", ":", ";", "eq:x;", "regex:.*", "\\:eq:1", "EQ:1:2:3"])
def test_bad_operations_are_refused_by_name(member: str, value: str) -> None:
    if value in (";", "eq:x;") and member not in ("_v", "startedAt", "expiresAt", "lastAccessAt"):
        # Nothing is a text, too.
        assert len(parse([(member, value)]).conditions) == 2
    else:
        assert refused(member, value) == member


@pytest.mark.parametrize(
    "value", ["", "x", "1.0", "\u0661", "eq:", "in:1::2", "gt", "9" * 19, "1e3", "gt:1:2", "0x1"]
)
def test_invalid_integer_is_refused(value: str) -> None:
    assert refused("_v", value) == "_v"


@pytest.mark.parametrize(
    "value",
    [
        "", "now", "2023-13-01", "2023-02-30", "2023-08-04T24:00", "2023-08-04T11", "1691147978015", "gt:",
        "in:", "2023-08-04T11:19:60Z", "2023-08-04T11:19:38+24:00", "2023-08-04T11:19:38+02:60", "0000-01-01",
        "in:2023-08-04:", "in:2023-08-04::2023-08-05", "gt:2023-08-04:2023-08-05", "2023-08-04Z",
        "2023-08-04\n",
    ],
)  # fmt: skip
def test_invalid_time_is_refused(value: str) -> None:
    assert refused("startedAt", value) == "startedAt"


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("$take", "-1", "$take"),
        ("$TAKE", "-1", "$take"),
        ("$take", "many", "$take"),
        ("$take", "", "$take"),
        ("$skip", "1.5", "$skip"),
        ("$skip", "9" * 40, "$skip"),
        ("$count", "perhaps", "$count"),
        ("$sort", "nonsense", "$sort"),
        ("$sort", "", "$sort"),
        ("$sort", "startedAt,", "$sort"),
        ("$sort", "startedAt:up", "$sort"),
        ("$sort", "-startedAt:asc", "$sort"),
        ("$sort", "--startedAt", "$sort"),
        ("$sort", "userName", "$sort"),
        ("$filter", "x", "$filter"),
        ("userName", "999", "userName"),
        ("identity", "999", "identity"),
        ("", "", ""),
        ("x" * 500, "1", "x" * 64),
        ("identity.userName", "x" * 10_000, "identity.userName"),
        ("$sort", "_v," * 4_000, "$sort"),
        ("_v", ";".join(["gt:0"] * (MAX_OPERATIONS + 1)), "_v"),
    ],
)
def test_bad_input_is_refused_by_name(name: str, value: str, field: str) -> None:
    assert refused(name, value) == field


def test_paging_that_stands_there_twice() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse([("$take", "1"), ("$Take", "2")])
    assert caught.value.data["field"] == "$take"


def test_as_much_as_may_be_asked() -> None:
    assert len(parse([("_v", ";".join(["gt:0"] * MAX_OPERATIONS))]).conditions) == MAX_OPERATIONS
    assert asked(("identity.userName", "ne:" + "x" * (MAX_LENGTH - 3)))


def test_every_operator_is_for_every_member() -> None:
    for member in MEMBERS:
        value = member.written(ROW)
        for name in OPERATORS:
            written = value if name in ("contains", "startswith", "endswith") else value.replace(":", "\\:")
            assert asked((member.name, f"{name}:{written}")) is (name not in ("ne", "gt", "lt", "nin"))
