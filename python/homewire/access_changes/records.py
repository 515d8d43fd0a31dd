"""Control records: changes of access that all nodes apply in order, and outbox entries that carry them.

The script of a change writes a record to the project's outbox (`store/outbox.lua`). The relay copies it as an
envelope (`rust/core/src/bus/envelope/mod.rs`) to each shard whose readers need it; the core's table of
transitions says which. Fields of an outbox entry, all text:

| field | meaning                                                                       |
| ----- | ----------------------------------------------------------------------------- |
| `t`   | number of the type                                                            |
| `u`   | user id; `h` home id, `d` device id, `p` project key id; 0: none              |
| `k`   | SHA-256 of the key, in hex, or nothing                                        |
| `b`   | body: of a moved device its old home, or 0; of a new member the key tags      |
|       | (16 hex digits each) of the user's keys that ended within the last minute;    |
|       | of an ended permission JSON (`users`, and `entity` if it has one); of a moved |
|       | entity its id                                                                 |
| `s`   | the user's homes, separated by commas; `*`: too many to be listed, or not     |
|       | all homes that the user may subscribe to                                      |

An outbox also has events that belong to a change (a value was saved): `t` is 0, `h` the home and `e` the
whole envelope. And messages that belong to a change: `t` is 0, `q` the queue and `m` the sealed message.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgpack

from homewire._core import control_records, record_shards, shard_of
from homewire.messages.models import OutboxMessage, OutboxQueue

VERSION: Final = b"\x01"
CONTROL: Final = 3
"""The kind of envelope that a control record is."""
ALL_HOMES: Final = b"*"
NO_RECORD: Final = b"0"
"""In place of a type: an event or a message."""
_LARGEST: Final = 2**64 - 1


class RecordType(IntEnum):
    """The type of a control record, with its number on the bus. Readers skip unknown types.

    `docs/control-records.md` says what each is, from the core's table (rust/core/src/routing/transitions.rs).
    """

    MEMBER_ADDED = 1
    MEMBER_REMOVED = 2
    USER_DELETED = 3
    KEY_ENDED = 4
    DEVICE_DELETED = 5
    DEVICE_MOVED = 6
    HOME_DELETED = 7
    PROJECT_DISABLED = 8
    PROJECT_DELETED = 9
    PROJECT_ENABLED = 10
    PERMISSION_ENDED = 11
    ENTITY_MOVED = 12
    HOME_DEACTIVATED = 13
    HOME_ACTIVATED = 14
    MEMBER_WAITS = 15


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """A control record as readers get it. Ids that do not apply are 0."""

    project: int
    type: int
    """A RecordType, or the number of one that a later version knows."""
    user: int = 0
    home: int = 0
    device: int = 0
    key_tag: int = 0
    """The first 8 bytes of the key's SHA-256, big endian."""
    outbox_ms: int = 0
    outbox_seq: int = 0
    """With `outbox_ms` the position in the project's outbox: of two records about one subject the later is
    valid."""
    body: bytes = b""

    def encode(self) -> bytes:
        """The envelope."""
        header = (
            CONTROL, self.project, self.type, self.user, self.home, self.device, self.key_tag,
            self.outbox_ms, self.outbox_seq,
        )  # fmt: skip
        packed: bytes = msgpack.packb(header)
        return VERSION + packed + self.body


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An outbox entry with an event of a home."""

    home: int
    envelope: bytes

    def shards(self, shards: int) -> Sequence[int]:
        """The shard of the home, of `shards` shards."""
        return (shard_of(self.home, shards),)


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """An outbox entry with a control record, and what else decides on its shards."""

    record: ControlRecord
    homes: tuple[int, ...] | None = ()
    """The homes of the user; None: too many to be listed."""
    project_key: int = 0

    @property
    def envelope(self) -> bytes:
        """The envelope that is copied to the shards."""
        return self.record.encode()

    def shards(self, shards: int) -> Sequence[int]:
        """The shards that get a copy, of `shards` shards, ascending.

        Raises ValueError for a malformed body.
        """
        record = self.record
        return record_shards(
            record.type, record.user, record.home, record.device, self.project_key, record.body,
            self.homes, shards,
        )  # fmt: skip


def parse(
    project: int, entry_id: bytes, fields: Mapping[bytes, bytes]
) -> OutboxRecord | OutboxEvent | OutboxMessage | None:
    """Parse an entry of the project's outbox; None for an invalid one."""
    try:
        if fields[b"t"] == NO_RECORD:
            if b"m" in fields:
                return OutboxMessage(OutboxQueue(fields[b"q"].decode()), fields[b"m"].decode())
            home, envelope = _number(fields[b"h"]), fields[b"e"]
            return OutboxEvent(home, envelope) if home and envelope else None
        milliseconds, _, sequence = entry_id.partition(b"-")
        record = ControlRecord(
            project, _number(fields[b"t"]),
            _number(fields.get(b"u", b"0")), _number(fields.get(b"h", b"0")),
            _number(fields.get(b"d", b"0")), _key_tag(fields.get(b"k", b"")),
            _number(milliseconds), _number(sequence), fields.get(b"b", b""),
        )  # fmt: skip
        entry = OutboxRecord(record, _homes(fields.get(b"s", b"")), _number(fields.get(b"p", b"0")))
        # A record without shards has lost its ids.
        return entry if record.type and entry.shards(1) else None
    except (KeyError, ValueError):
        return None


def _number(digits: bytes) -> int:
    if not digits.isdigit() or int(digits) > _LARGEST:
        raise ValueError("not an unsigned number of 64 bits")
    return int(digits)


def _key_tag(key_hash: bytes) -> int:
    return int.from_bytes(bytes.fromhex(key_hash.decode("ascii"))[:8], "big")


def _homes(listed: bytes) -> tuple[int, ...] | None:
    if listed == ALL_HOMES:
        return None
    return tuple(map(_number, listed.split(b","))) if listed else ()


def markdown() -> str:
    """The page docs/control-records.md."""
    lines = [
        "# Control records",
        "",
        "Made by `make docs` from `rust/core/src/routing/transitions.rs`.",
        "",
        "A control record is a change of access. The relay copies it to the shards of the ids in the third",
        "column. The reactor of each node applies a copy to topics of the copy's own shard",
        "([access changes](design/access-changes.md)).",
        "",
        "- *Lose*: a connection without topics is closed, unless it follows homes and waits for another one.",
        "- *Revoked*: the connection loses its topics shard by shard. It is closed when none is left, and",
        "  after 1 s at the latest.",
        "- 4004 beside a final code: the record is older than the connection. The access may have come back.",
        "",
        "| number | record | copied to the shards of | what a reader does | [close codes](close-codes.md) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for number, name, copies, codes, summary in control_records():
        closes = ", ".join(map(str, codes)) or "none"
        lines.append(f"| {number} | `{name}` | {', '.join(copies)} | {summary} | {closes} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
