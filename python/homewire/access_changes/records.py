"""Control records: what every node must hear in order, and which shards a record is copied to.

A record begins as an entry of a project's outbox, written by the same script as the change itself
(`store/scripts/`), and travels as an envelope (`rust/core/src/bus/envelope/mod.rs`) in every shard whose
readers it concerns. Fields of an outbox entry, all of them text:

| field | what                                                                        |
| ----- | --------------------------------------------------------------------------- |
| `t`   | the number of its type                                                      |
| `u`   | user id; `h` home id, `d` device id, `p` project key id; 0: about none       |
| `k`   | SHA-256 of the key, in hex, or nothing                                      |
| `b`   | body: of a moved device its old home, or 0; of a new member the key tags    |
|       | (16 hex digits each) of the user's keys that ended within the last minute;  |
|       | of an ended permission JSON (`EndedPermission`); of a moved entity its id   |
| `s`   | the user's homes, separated by commas; `*`: too many to be listed, or not   |
|       | all that the user hears                                                     |

An outbox also carries events that happened together with a change (a value was saved): of those `t` is 0,
`h` the home and `e` the whole envelope. And messages to people, who are written to because of a change: of
those `t` is 0, too, `q` the queue and `m` the sealed letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

import msgpack
import msgspec

from homewire._core import shard_of
from homewire.messages.models import Posting, PostingQueue

VERSION: Final = b"\x01"
CONTROL: Final = 3
"""The kind of envelope that a control record is."""
ALL_HOMES: Final = b"*"
NO_RECORD: Final = b"0"
"""In the place of a type: an event, or a message to somebody."""
_LARGEST: Final = 2**64 - 1


class RecordType(IntEnum):
    """What happened. The numbers are those of the wire; a reader skips one that it does not know."""

    MEMBER_ADDED = 1
    MEMBER_REMOVED = 2
    USER_DELETED = 3
    KEY_ENDED = 4
    """Revoked, rotated or its session ended; of a user, a device, or (neither) a project key."""
    DEVICE_DELETED = 5
    DEVICE_MOVED = 6
    """`home` is the new one, the body the old one in decimal digits; 0: none."""
    HOME_DELETED = 7
    PROJECT_DISABLED = 8
    PROJECT_DELETED = 9
    PROJECT_ENABLED = 10
    PERMISSION_ENDED = 11
    """Users lost the last source of a right; the body says who (`EndedPermission`)."""
    ENTITY_MOVED = 12
    """`home` is the one that the entity was bound to, the body its id. It may be bound to another by now."""
    HOME_DEACTIVATED = 13
    """Nothing is heard of it until HOME_ACTIVATED. Who follows homes, on whatever node, waits for that: so
    neither has to say who its members are."""
    HOME_ACTIVATED = 14
    MEMBER_WAITS = 15
    """MEMBER_ADDED to a home that is deactivated."""


class EndedPermission(msgspec.Struct, frozen=True):
    """The body of PERMISSION_ENDED. What the right was is told by the first of these that is there:

    an `entity`: to hear its events (`home` is the home that it is bound to, 0: none);
    a `device`: to hear that device (`home` is where it is, 0: nowhere);
    a `home`: to hear all of it. None of them: a right to write, which no listener has.
    """

    users: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)], ...], msgspec.Meta(min_length=1)]
    entity: str | None = None


_decode_permission: Final = msgspec.json.Decoder(EndedPermission).decode


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """A control record as readers get it. Subjects that it is not about are 0."""

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
    """With `outbox_ms` its place in the project's outbox: of two about one subject, the later holds."""
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
class Happening:
    """An entry of an outbox that is an event of a home."""

    home: int
    envelope: bytes

    def shards(self, shards: int) -> Sequence[int]:
        """The shard, of so many, that it goes to."""
        return (shard_of(self.home, shards),)


@dataclass(frozen=True, slots=True)
class Announcement:
    """An entry of an outbox: a record, and what else decides who must hear it."""

    record: ControlRecord
    homes: tuple[int, ...] | None = ()
    """The homes that the user was a member of; None: too many to be listed."""
    project_key: int = 0

    @property
    def envelope(self) -> bytes:
        """What its shards get."""
        return self.record.encode()

    def shards(self, shards: int) -> Sequence[int]:
        """The shards, of so many, that a copy goes to, ascending."""
        concerned = self._concerned()
        if concerned is None:
            return range(shards)
        return sorted({shard_of(each, shards) for each in concerned if each})

    def _concerned(self) -> Iterable[int] | None:
        """The ids whose shards are meant; None: every shard."""
        record = self.record
        match record.type:
            case RecordType.MEMBER_ADDED | RecordType.MEMBER_REMOVED | RecordType.MEMBER_WAITS:
                return record.home, record.user
            case RecordType.USER_DELETED:
                return None if self.homes is None else (record.user, *self.homes)
            case RecordType.KEY_ENDED if record.user:
                return None if self.homes is None else (record.user, *self.homes)
            case RecordType.KEY_ENDED:
                return record.device, self.project_key
            case RecordType.DEVICE_DELETED:
                return record.device, record.home
            case RecordType.DEVICE_MOVED:
                return record.device, record.home, _number(record.body)
            case RecordType.PERMISSION_ENDED:
                return record.home, *_ended_permission(record.body).users
            case RecordType.ENTITY_MOVED | RecordType.HOME_DEACTIVATED | RecordType.HOME_ACTIVATED:
                return (record.home,)
        # Of a project, of all who know a home; or of a type that only a later version knows: while a
        # deployment is being upgraded, any node may relay what another one wrote.
        return None


def parse(
    project: int, entry_id: bytes, fields: Mapping[bytes, bytes]
) -> Announcement | Happening | Posting | None:
    """What an entry of the project's outbox is; None for what nobody understands."""
    try:
        if fields[b"t"] == NO_RECORD:
            if b"m" in fields:
                return Posting(PostingQueue(fields[b"q"].decode()), fields[b"m"].decode())
            home, envelope = _number(fields[b"h"]), fields[b"e"]
            return Happening(home, envelope) if home and envelope else None
        milliseconds, _, sequence = entry_id.partition(b"-")
        record = ControlRecord(
            project, _number(fields[b"t"]),
            _number(fields.get(b"u", b"0")), _number(fields.get(b"h", b"0")),
            _number(fields.get(b"d", b"0")), _key_tag(fields.get(b"k", b"")),
            _number(milliseconds), _number(sequence), fields.get(b"b", b""),
        )  # fmt: skip
        announcement = Announcement(record, _homes(fields.get(b"s", b"")), _number(fields.get(b"p", b"0")))
        # One that concerns nobody has lost what it was about.
        return announcement if record.type and announcement.shards(1) else None
    except (KeyError, ValueError):
        return None


def _number(digits: bytes) -> int:
    if not digits.isdigit() or int(digits) > _LARGEST:
        raise ValueError("not an unsigned number of 64 bits")
    return int(digits)


def _ended_permission(body: bytes) -> EndedPermission:
    try:
        return _decode_permission(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("not the body of an ended permission") from error


def _key_tag(key_hash: bytes) -> int:
    return int.from_bytes(bytes.fromhex(key_hash.decode("ascii"))[:8], "big")


def _homes(listed: bytes) -> tuple[int, ...] | None:
    if listed == ALL_HOMES:
        return None
    return tuple(map(_number, listed.split(b","))) if listed else ()
