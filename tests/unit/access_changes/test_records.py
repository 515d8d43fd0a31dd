"""Control records: their bytes, what an outbox entry means, and which shards get it."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homewire._core import control_records, shard_of
from homewire.access_changes.records import ControlRecord, OutboxRecord, RecordType, markdown, parse

PAGE = Path(__file__).parents[3] / "docs" / "control-records.md"
LARGEST = 2**64 - 1
NUMBERS = st.integers(0, LARGEST)
HASH = "00112233445566778899aabbccddeeff" * 2


def shards_of(*ids: int) -> list[int]:
    return sorted({shard_of(each, 64) for each in ids})


def entry(**fields: object) -> dict[bytes, bytes]:
    return {name.encode(): str(value).encode() for name, value in fields.items()}


def test_types_are_those_of_the_core() -> None:
    assert {kind.value: kind.name.lower() for kind in RecordType} == {
        number: name for number, name, *_ in control_records()
    }


def test_page_of_records_is_current() -> None:
    assert PAGE.read_text() == markdown(), "run `make docs`"


@given(*([NUMBERS] * 7), st.binary(max_size=30))
def test_envelope_is_a_version_a_header_and_a_body(
    project: int, user: int, home: int, device: int, tag: int, time: int, sequence: int, body: bytes
) -> None:
    envelope = ControlRecord(project, 6, user, home, device, tag, time, sequence, body).encode()
    header = msgpack.packb([3, project, 6, user, home, device, tag, time, sequence])
    assert envelope == b"\x01" + header + body


def test_bytes_are_those_that_the_core_reads() -> None:
    record = ControlRecord(7, RecordType.DEVICE_MOVED, 0, 300, 70_000, 2**63, 1_795_000_000_000, 5, b"12")
    assert record.encode().hex(" ") == (
        "01 99 03 07 06 00 cd 01 2c ce 00 01 11 70 cf 80 00 00 00 00 00 00 00"
        " cf 00 00 01 a1 ee 56 5e 00 05 31 32"
    )


@pytest.mark.parametrize(
    ("fields", "concerned"),
    [
        (entry(t=1, u=5, h=9), [5, 9]),
        (entry(t=2, u=5, h=9), [5, 9]),
        (entry(t=3, u=5, s="11,12,13"), [5, 11, 12, 13]),
        (entry(t=3, u=5), [5]),
        (entry(t=3, u=5, s="*"), None),
        (entry(t=4, u=5, k=HASH, s="11,12"), [5, 11, 12]),
        (entry(t=4, u=5, k=HASH, s="*"), None),
        (entry(t=4, d=6, k=HASH, p=0), [6]),
        (entry(t=4, d=0, k=HASH, p=8), [8]),
        (entry(t=5, d=6, h=0), [6]),
        (entry(t=5, d=6, h=9), [6, 9]),
        (entry(t=6, d=6, h=9, b=10), [6, 9, 10]),
        (entry(t=6, d=6, h=0, b=10), [6, 10]),
        (entry(t=6, d=6, h=9, b=0), [6, 9]),
        (entry(t=7, h=9), None),
        (entry(t=8), None),
        (entry(t=9), None),
        (entry(t=10), None),
        (entry(t=11, h=9, b='{"users":[5,6]}'), [5, 6, 9]),
        (entry(t=11, h=9, d=7, b='{"users":[5]}'), [5, 9]),
        (entry(t=11, h=0, b='{"entity":"a \\u0001\\"b","users":[5]}'), [5]),
        (entry(t=11, b='{"users":[5],"later":1}'), [5]),
        (entry(t=12, h=9, b="any text"), [9]),
        # Of a later version, while a deployment is being upgraded.
        (entry(t=200, u=5), None),
    ],
)
def test_record_is_copied_to_shards_of_its_subjects(
    fields: dict[bytes, bytes], concerned: list[int] | None
) -> None:
    announcement = parse(3, b"17-4", fields)
    assert isinstance(announcement, OutboxRecord)
    assert (announcement.record.outbox_ms, announcement.record.outbox_seq) == (17, 4)
    assert announcement.record.key_tag == (0x0011223344556677 if b"k" in fields else 0)
    expected = list(range(64)) if concerned is None else shards_of(*concerned)
    assert list(announcement.shards(64)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        entry(x="y"),
        entry(t=""),
        entry(t="member"),
        entry(t=0),
        entry(t=-1, u=5),
        entry(t=1),
        entry(t=1, u="five", h=9),
        entry(t=1, u=5, h=LARGEST + 1),
        entry(t=3, u=5, s="11,,12"),
        entry(t=3, u=5, s="all"),
        entry(t=4, u=5, k="no hex"),
        entry(t=4, k=HASH),
        entry(t=4, k="\N{GREEK SMALL LETTER ALPHA}", u=5),
        entry(t=6, d=6, h=9),
        entry(t=6, d=6, h=9, b="home"),
        entry(t=6, d=6, h=9, b=-1),
        entry(t=11, h=9),
        entry(t=11, h=9, b="users"),
        entry(t=11, h=9, b='{"users":[]}'),
        entry(t=11, h=9, b='{"users":[0]}'),
        entry(t=11, h=9, b='{"users":["5"]}'),
        {b"t": b"11", b"h": b"9", b"b": b'{"users":[5],"entity":"\xff"}'},
        entry(t=11, h=9, b=f'{{"users":[{LARGEST + 1}]}}'),
        entry(t=11, h=9, b=f'{{"users":[{"9" * 5000}]}}'),
        entry(t=11, h=9, b='{"users":[5],"later":' + "[" * 100_000),
        entry(t=12, b="text"),
        {b"t": b"1", b"u": b"\xff"},
    ],
)
def test_malformed_record_is_none(fields: dict[bytes, bytes]) -> None:
    assert parse(3, b"17-4", fields) is None


@given(st.dictionaries(st.sampled_from([b"t", b"u", b"h", b"d", b"k", b"p", b"b", b"s"]), st.binary()))
def test_no_entry_is_too_strange(fields: dict[bytes, bytes]) -> None:
    announcement = parse(3, b"17-4", fields)
    assert announcement is None or isinstance(announcement, OutboxRecord)
    if announcement is not None:
        assert announcement.record.encode()
        assert announcement.shards(64)
