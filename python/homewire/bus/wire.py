"""Commands as bytes.

XADD is written out by hand: all of it but the envelope stays the same, so a
prepared head per shard costs 0.3 µs a command where packing ten arguments costs 1.2 µs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hiredis import pack_command

from homewire.bus.shards import events_key, once_key

TRIM_LIMIT = 1000
"""No command touches more entries than this (design, *The store*), also when it trims."""

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


class Heads:
    """For each shard the bytes of an XADD up to the envelope's length.

    Trimming by age costs Redis a third of an XADD, so only the first append of a shard after each
    `renew` does it; the timer in `retention` sees to the rest.
    """

    __slots__ = ("_next", "_plain")

    def __init__(self, shards: int) -> None:
        end = b"$1\r\n*\r\n$1\r\ne\r\n$"
        self._plain = [b"*5\r\n$4\r\nXADD\r\n" + _bulk(events_key(shard)) + end for shard in range(shards)]
        self._next = list(self._plain)

    def renew(self, cutoff_ms: int) -> None:
        """From now on each shard's next append removes entries older than `cutoff_ms`."""
        fixed = b"$5\r\nMINID\r\n$1\r\n~\r\n%b$5\r\nLIMIT\r\n%b$1\r\n*\r\n$1\r\ne\r\n$" % (
            _bulk(b"%d" % cutoff_ms),
            _bulk(b"%d" % TRIM_LIMIT),
        )
        self._next = [
            b"*10\r\n$4\r\nXADD\r\n" + _bulk(events_key(shard)) + fixed for shard in range(len(self._plain))
        ]

    def take(self, shard: int) -> bytes:
        """The head of the shard's next append."""
        head = self._next[shard]
        self._next[shard] = self._plain[shard]
        return head


def xadd(heads: Heads, shard: int, envelope: bytes) -> bytes:
    """One whole XADD."""
    return b"%b%d\r\n%b\r\n" % (heads.take(shard), len(envelope), envelope)


def xadd_many(heads: Heads, items: Iterable[tuple[int, bytes]]) -> bytes:
    """One XADD for each `(shard, envelope)`, in order."""
    take = heads.take
    return b"".join([b"%b%d\r\n%b\r\n" % (take(shard), len(envelope), envelope) for shard, envelope in items])


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
    return pack(tuple(arguments))


def pack(command: tuple[bytes | str | int, ...]) -> bytes:
    """Any command, by hiredis."""
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # its stub asks for a 1-tuple
    return packed


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)
