"""The Lua of the store. Every change of several keys is one script, on one slot, all keys declared.

A script answers a list whose first word says what came of it: `ok`, or why nothing was changed:
`unknown` <noun>, `taken` <what>, `full` <session id>, `exceeded` <what>, `last_owner`,
`owners_only`, `behind` (the outbox is full), or
`moved` (what the caller read before is no longer so; read again), `quota` <setting>. Scripts that write
begin with KEYS[1] = the project and KEYS[2] = its outbox.

What a change deletes and cannot sweep in one step it leaves with a `tombstone`, which housekeeping finds.

What every node must hear is written to the outbox by the same script; its fields are explained in
`access_changes/records.py`. `Script.announces` says of which scripts that is so.

How entries of an outbox are copied to where they are read: once each, whoever copies and how often.

Scripts of housekeeping: which projects have something to be swept, and who looks. By Redis' clock: those
of the nodes may differ.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.store.accounting import ACCOUNTING, TOOLS

LIMIT: Final = 1000
"""The most elements that one script touches."""
OUTBOX_LIMIT: Final = 10_000
"""Records that wait to be relayed. With more, the shards have been out of reach for long, and changes
that nobody would hear of are refused."""
_ANNOUNCED: Final = {kind.name.lower(): kind.value for kind in RecordType}
ENDED_KEPT: Final = 300
"""Keys of a user that ended lately and are remembered: more than a user has live sessions."""
_CHARGING: Final = re.compile(rf"\b(?:{'|'.join(TOOLS)})\(")
_ENDING: Final = re.compile(r"\breturn (?:changed|unheard)\('")
_CHANGED: Final = re.compile(r"changed\('(\w++)'")
_REPORTED: Final = re.compile(r"\b(?:report|post)\(")

_GUARD: Final = """
local project, outbox = KEYS[1], KEYS[2]
local state = redis.call('HGET', project, 'state')
if not state or state == 'deleted' then return {'unknown', 'project'} end
"""

_ANNOUNCE: Final = f"""
if redis.call('XLEN', outbox) >= {OUTBOX_LIMIT} then return {{'behind'}} end
local TYPES = {{{", ".join(f"{name} = {number}" for name, number in _ANNOUNCED.items())}}}
-- Whether rights, and not memberships, say what is heard in this project.
local function by_permission() return redis.call('HGET', project, 'access_control') == 'permission' end
-- Whether nothing is heard of a home until it is activated.
local function is_deactivated(home) return redis.call('HGET', home, 'deactivated') == '1' end
-- The homes of a user; `touched` elements were touched by the script already.
local function listed(homes, touched)
  if not homes then return '' end
  if by_permission() then return '*' end
  if redis.call('ZCARD', homes) + touched > {LIMIT} then return '*' end
  return table.concat(redis.call('ZRANGE', homes, 0, -1), ',')
end
-- Keys of the user that ended lately: these ends have no copy in the shard of a home that is entered later.
local function ended(ended_keys)
  return ended_keys and table.concat(redis.call('ZRANGE', ended_keys, 0, {ENDED_KEPT - 1})) or ''
end
-- An event that happened with the change: it reaches the listeners of the home, once.
local function report(home, envelope)
  redis.call('XADD', outbox, '*', 't', 0, 'h', home, 'e', envelope)
end
-- A message to somebody: it is in its queue before the change is answered. No channel: nothing is said.
local function post(channel, sealed)
  if channel ~= '' then redis.call('XADD', outbox, '*', 't', 0, 'q', channel, 'm', sealed) end
end
-- Every change ends here: what happened, and the user, home, device, key hash or project key it is about.
-- `listed`: what `listed` answered, for several changes of one user.
local function changed(what, about)
  redis.call('XADD', outbox, '*', 't', TYPES[what], 'u', about.user or 0, 'h', about.home or 0,
    'd', about.device or 0, 'k', about.key_hash or '', 'p', about.project_key or 0,
    'b', about.body or ended(about.ended_keys), 's', about.listed or listed(about.homes, about.touched or 0))
  return {{'ok'}}
end
"""

_TOMBSTONE: Final = """
-- What is deleted from here on, and still has to be swept: its id stands in this index until then.
local function tombstone(index, id) redis.call('ZADD', index, id, id) end
"""

_UNHEARD: Final = """
-- Every change ends here of which nobody has to hear: what it was, and what else its caller is to know.
local function unheard(what, ...) return {'ok', ...} end
"""


@dataclass(frozen=True)
class Script:
    """One script and the SHA-1 that Redis knows it by."""

    text: str
    announces: bool = False
    """Whether it writes to the outbox of the project."""
    leaves_rest: bool = False
    """Whether something may have to be swept behind it, so that housekeeping has to know before."""
    charges: bool = False
    """Whether it counts what is stored (`accounting.py`)."""
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


def reading(body: str) -> Script:
    """A script that changes nothing."""
    return Script("#!lua flags=no-writes\n" + body)


def changing(body: str, flags: str = "") -> Script:
    """A change of a project. It ends with `changed`, if every node must hear of it, or `unheard`.

    With `report` it also sends an event, with `post` a message: both are announced in any case. With
    `tombstone` it leaves something to be swept, by a `CleanupJob` of `housekeeping.py`. What it stores it
    counts with `charge` before it writes anything, what it frees with `release`. Raises ValueError
    for a text that does neither, or announces what no RecordType is.
    """
    announced = set(_CHANGED.findall(body))
    if unknown := announced - _ANNOUNCED.keys():
        raise ValueError(f"nobody knows how to announce {unknown}")
    if not _ENDING.search(body):
        raise ValueError("a change ends with changed('…') or unheard('…')")
    announces = bool(announced) or _REPORTED.search(body) is not None
    leaves_rest = "tombstone(" in body
    charges = _CHARGING.search(body) is not None
    tools = (
        (ACCOUNTING if charges else "")
        + (_ANNOUNCE if announces else "")
        + (_TOMBSTONE if leaves_rest else "")
        + _UNHEARD
    )
    return Script(f"#!lua{flags}\n{_GUARD}{tools}{body}", announces, leaves_rest, charges)


def removing(body: str) -> Script:
    """A change that takes away: a Redis at its memory limit must still let a key be revoked."""
    return changing(body, " flags=allow-oom")


COPYING: Final = """
-- KEYS: where to, the places copied there last. ARGV: how long these are remembered in ms; from `first` on,
-- in the order of the outbox, places and contents: what was not copied yet is given to `append`.
-- By their names, not their order: an outbox that lost its end may begin again with an earlier place.
local function copy(first, append)
  local known, new, copied = redis.call('GET', KEYS[2]) or ',', ',', 0
  for i = first, #ARGV, 2 do
    if not string.find(known, ',' .. ARGV[i] .. ',', 1, true) then
      append(ARGV[i + 1])
      new, copied = new .. ARGV[i] .. ',', copied + 1
    end
  end
  if copied > 0 then redis.call('SET', KEYS[2], new .. string.sub(known, 2, 8192), 'PX', ARGV[1]) end
  return copied
end
"""


_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

NOTE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: unfinished. ARGV: project, when to look, in ms from now
{_NOW}
return redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
""")

TAKE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: unfinished. ARGV: how many at most, for how long in ms. Until when they are taken, then the projects.
{_NOW}
local taken = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, project in ipairs(taken) do redis.call('ZADD', KEYS[1], now + ARGV[2], project) end
table.insert(taken, 1, now + ARGV[2])
return taken
""")

FINISHED: Final = Script("""#!lua flags=allow-oom
-- KEYS: unfinished. ARGV: project, until when it was taken. One noted again meanwhile stays.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
""")
