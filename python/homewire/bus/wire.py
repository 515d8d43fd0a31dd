"""Commands as bytes: all but XADD, which the core writes (`AppendHeads`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hiredis import pack_command

from homewire.bus.shards import events_key, once_key

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
    return pack(tuple(arguments))


def pack(command: tuple[bytes | str | int, ...]) -> bytes:
    """Any command, by hiredis."""
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # its stub asks for a 1-tuple
    return packed
