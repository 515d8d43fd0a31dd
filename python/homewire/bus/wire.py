"""What the bus writes together, and counts.

Commands as bytes: all but XADD, which the core writes (`XaddPrefixes`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, TypeAlias

from hiredis import ReplyError

from homewire.bus.shards import BusError, BusStats, events_key, once_key
from homewire.redis.connection import PendingReplies, pack

Reply: TypeAlias = bytes | int | list[Any] | ReplyError | BusError | None


class Batch(PendingReplies):
    """The appends of one caller, counted as long as they are in flight."""

    __slots__ = ("_stats", "size")

    def __init__(self, data: bytes, expected: int, deadline: float, stats: BusStats) -> None:
        """`deadline`: loop time by which Redis must have answered."""
        super().__init__(data, expected, deadline)
        self.size = len(data)
        self._stats = stats
        stats.in_flight_bytes += self.size

    def settle(self, failure: Exception | None = None) -> None:
        """Wake the caller; commands without a reply get `failure`."""
        self._stats.in_flight_bytes -= self.size
        super().settle(failure)


APPEND_ONCE = b"""
local seen = redis.call('HGET', KEYS[1], 'f')
if seen and seen ~= ARGV[1] then return false end
local ids, added = {0}, 0
for i = 4, #ARGV, 2 do
  local id = seen and redis.call('HGET', KEYS[1], ARGV[i])
  if not id then
    id = redis.call('XADD', KEYS[2], 'MINID', '~', ARGV[3], 'LIMIT', '1000', '*', 'e', ARGV[i + 1])
    redis.call('HSET', KEYS[1], ARGV[i], id)
    added = added + 1
  end
  ids[#ids + 1] = id
end
if not seen then redis.call('HSET', KEYS[1], 'f', ARGV[1]) end
if added > 0 or not seen then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
ids[1] = added
return ids
"""
"""Append each labelled envelope that this key has not appended yet, and answer `[added, id, …]`, or
nil when the key stands for another request. The record is a hash: `f` the fingerprint, label → id.

Redis judges memory, role and disk before a script's first write, and that first write is the XADD:
a refused script has stored nothing."""

APPEND_ONCE_SHA = hashlib.sha1(APPEND_ONCE, usedforsecurity=False).hexdigest().encode()


def append_once(
    shard: int,
    scope_key: str,
    fingerprint: str,
    labelled: Iterable[tuple[int, bytes]],
    *,
    ttl_ms: int,
    cutoff_ms: int,
    whole_script: bool,
) -> bytes:
    """The call of `APPEND_ONCE`, by its digest or, after a NOSCRIPT, with the script itself."""
    arguments: list[bytes | str | int] = [
        *((b"EVAL", APPEND_ONCE) if whole_script else (b"EVALSHA", APPEND_ONCE_SHA)),
        2,
        once_key(shard, scope_key),
        events_key(shard),
        fingerprint,
        ttl_ms,
        cutoff_ms,
    ]
    for label, envelope in labelled:
        arguments += (label, envelope)
    return pack(arguments)


def still_has(newest: bytes, up_to_newest: object, information: object) -> bool:
    """Whether a stream still has, or has trimmed, the entry `newest`, or else has lost it.

    `up_to_newest` answers XREVRANGE from it, `information` XINFO STREAM. Trimming takes what is older
    first; so an older entry without this one means that this one was lost.
    """
    if isinstance(up_to_newest, list) and up_to_newest:
        return bool(up_to_newest[0][0] == newest)
    if not isinstance(information, list):
        return False  # There is no such stream any more.
    last: bytes = dict(zip(information[::2], information[1::2], strict=True))[b"last-generated-id"]
    return _id_order(last) >= _id_order(newest)


def _id_order(stream_id: bytes) -> tuple[int, int]:
    ms, _, seq = stream_id.partition(b"-")
    return int(ms), int(seq)
