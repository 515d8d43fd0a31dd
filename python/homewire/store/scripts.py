"""The Lua of the store. Every change of several keys is one script, on one slot, all keys declared.

A script answers a list whose first word says what came of it: `ok`, or why nothing was changed:
`unknown` <noun>, `taken` <what>, `full` <session id>, `last_owner`, `behind` (the outbox is full), or
`moved` (what the caller read before is no longer so; read again). Scripts that write begin with KEYS[1] =
the project and KEYS[2] = its outbox.

What every node must hear is written to the outbox by the same script; its fields are explained in
`bus/control.py`. `Script.announces` says of which scripts that is so.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from homewire.bus.control import RecordType

LIMIT: Final = 1000
"""The most elements that one script touches."""
OUTBOX_LIMIT: Final = 10_000
"""Records that wait to be relayed. With more, the shards have been out of reach for long, and changes
that nobody would hear of are refused."""
_ANNOUNCED: Final = {kind.name.lower(): kind.value for kind in RecordType}
_SILENT: Final = frozenset(
    {"app_created", "project_key_created", "user_created", "session_opened", "device_created"}
)

_GUARD: Final = """
local project, outbox = KEYS[1], KEYS[2]
local state = redis.call('HGET', project, 'state')
if not state or state == 'deleted' then return {'unknown', 'project'} end
"""

_ANNOUNCE: Final = f"""
if redis.call('XLEN', outbox) >= {OUTBOX_LIMIT} then return {{'behind'}} end
local TYPES = {{{", ".join(f"{name} = {number}" for name, number in _ANNOUNCED.items())}}}
-- The homes of a user; `touched` elements were touched by the script already.
local function listed(homes, touched)
  if not homes then return '' end
  if redis.call('ZCARD', homes) + touched > {LIMIT} then return '*' end
  return table.concat(redis.call('ZRANGE', homes, 0, -1), ',')
end
-- Every change ends here: what happened, and the user, home, device, key hash or project key it is about.
local function changed(what, about)
  redis.call('XADD', outbox, '*', 't', TYPES[what], 'u', about.user or 0, 'h', about.home or 0,
    'd', about.device or 0, 'k', about.key_hash or '', 'p', about.project_key or 0,
    'b', about.body or '', 's', listed(about.homes, about.touched or 0))
  return {{'ok'}}
end
"""

_KEEP_SILENT: Final = """
-- Every change ends here; of this one nobody has to hear.
local function changed(what) return {'ok'} end
"""


@dataclass(frozen=True)
class Script:
    """One script and the SHA-1 that Redis knows it by."""

    text: str
    announces: bool = False
    """Whether it writes to the outbox of the project."""
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


def _read(body: str) -> Script:
    return Script("#!lua flags=no-writes\n" + body)


def _change(body: str, flags: str = "") -> Script:
    what = set(re.findall(r"changed\('(\w+)'", body))
    if unknown := what - _ANNOUNCED.keys() - _SILENT:
        raise ValueError(f"nobody knows whether {unknown} is announced")
    announces = not what.isdisjoint(_ANNOUNCED)
    return Script(f"#!lua{flags}\n{_GUARD}{_ANNOUNCE if announces else _KEEP_SILENT}{body}", announces)


def _removal(body: str) -> Script:
    # A Redis at its memory limit must still let a key be revoked.
    return _change(body, " flags=allow-oom")


LOOK_UP_KEY: Final = _read("""
-- KEYS: project, key
if redis.call('HGET', KEYS[1], 'state') ~= 'live' then return false end
return redis.call('HMGET', KEYS[2], 'kind', 'id', 'name', 'permissions', 'expires')
""")

UNLIST_PROJECT: Final = Script("""#!lua
-- KEYS: live projects, deleted projects. ARGV: id
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then redis.call('ZADD', KEYS[2], ARGV[1], ARGV[1]) end
return redis.call('ZSCORE', KEYS[2], ARGV[1])
""")

BURY_PROJECT: Final = _removal("""
-- From here on every key of the project is dead and every change refused.
redis.call('HSET', project, 'state', 'deleted')
return changed('project_deleted', {})
""")

DISABLE_PROJECT: Final = _removal("""
-- From here on every key of the project is dead; its records can be changed.
if state == 'disabled' then return {'ok'} end
redis.call('HSET', project, 'state', 'disabled')
return changed('project_disabled', {})
""")

ENABLE_PROJECT: Final = _removal("""
if state == 'live' then return {'ok'} end
redis.call('HSET', project, 'state', 'live')
return changed('project_enabled', {})
""")

CREATE_APP: Final = _change("""
-- KEYS: …, apps. ARGV: id, created
if redis.call('HSETNX', KEYS[3], ARGV[1], ARGV[2]) == 0 then return {'taken', 'app'} end
return changed('app_created')
""")

CREATE_PROJECT_KEY: Final = _change("""
-- KEYS: …, record, index, key. ARGV: id, hash, name, permissions, created
redis.call('HSET', KEYS[3], 'name', ARGV[3], 'permissions', ARGV[4], 'created', ARGV[5], 'key', ARGV[2])
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[1])
redis.call('HSET', KEYS[5], 'kind', 'project key', 'id', ARGV[1], 'name', ARGV[3], 'permissions', ARGV[4])
return changed('project_key_created')
""")

REVOKE_PROJECT_KEY: Final = _removal("""
-- KEYS: …, record, index, key. ARGV: id, hash
if redis.call('HGET', KEYS[3], 'key') ~= ARGV[2] then return {'moved'} end
redis.call('UNLINK', KEYS[3], KEYS[5])
redis.call('ZREM', KEYS[4], ARGV[1])
return changed('key_ended', {key_hash = ARGV[2], project_key = ARGV[1]})
""")

ROTATE_KEY: Final = _change("""
-- KEYS: …, record (of a device or project key), old key, new key
-- ARGV: old hash, new hash, device id or 0, project key id or 0
if redis.call('HGET', KEYS[3], 'key') ~= ARGV[1] then return {'moved'} end
redis.call('RENAME', KEYS[4], KEYS[5])
redis.call('HSET', KEYS[3], 'key', ARGV[2])
return changed('key_ended', {key_hash = ARGV[1], device = ARGV[3], project_key = ARGV[4]})
""")

CREATE_USER: Final = _change("""
-- KEYS: …, user, users, emails, phones, external keys
-- ARGV: id, created, name, password hash, email, unique form of email, phone, external key
local id = ARGV[1]
local unique = {email = {KEYS[5], ARGV[6]}, phone = {KEYS[6], ARGV[7]}, external_key = {KEYS[7], ARGV[8]}}
for what, place in pairs(unique) do
  if place[2] ~= '' and redis.call('HEXISTS', place[1], place[2]) == 1 then return {'taken', what} end
end
for _, place in pairs(unique) do
  if place[2] ~= '' then redis.call('HSET', place[1], place[2], id) end
end
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'name', ARGV[3], 'password', ARGV[4], 'email', ARGV[5],
  'unique_email', ARGV[6], 'phone', ARGV[7], 'external_key', ARGV[8], 'verified', '0')
redis.call('ZADD', KEYS[4], id, id)
return changed('user_created')
""")

DELETE_USER: Final = _removal("""
-- KEYS: …, user, users, emails, phones, external keys, sessions of the user, departing users,
--       homes of the user, then session and key of each session
-- ARGV: id, number of sessions, their ids
local id, sessions = ARGV[1], tonumber(ARGV[2])
local unique = redis.call('HMGET', KEYS[3], 'unique_email', 'phone', 'external_key')
if not unique[1] then return {'unknown', 'user'} end
if redis.call('ZCARD', KEYS[8]) ~= sessions then return {'moved'} end
for i = 1, sessions do
  if not redis.call('ZSCORE', KEYS[8], ARGV[2 + i]) then return {'moved'} end
end
for i = 1, 3 do
  if unique[i] ~= '' then redis.call('HDEL', KEYS[4 + i], unique[i]) end
end
for i = 11, 10 + 2 * sessions do redis.call('UNLINK', KEYS[i]) end
redis.call('UNLINK', KEYS[3], KEYS[8])
redis.call('ZREM', KEYS[4], id)
redis.call('ZADD', KEYS[9], id, id)
return changed('user_deleted', {user = id, homes = KEYS[10], touched = 3 * sessions})
""")

OPEN_SESSION: Final = _change("""
-- KEYS: …, user, sessions of the user, session, key
-- ARGV: user id, session id, hash, app, started, expires, record kept until, address, user agent,
--       scheme, limit
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'user'} end
local dead = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ARGV[5], 'LIMIT', 0, 100)
if #dead > 0 then redis.call('ZREM', KEYS[4], unpack(dead)) end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[11]) then
  return {'full', redis.call('ZRANGE', KEYS[4], 0, 0)[1]}
end
redis.call('HSET', KEYS[5], 'user', ARGV[1], 'key', ARGV[3], 'app', ARGV[4], 'started', ARGV[5],
  'expires', ARGV[6], 'last_access', ARGV[5], 'address', ARGV[8], 'user_agent', ARGV[9],
  'scheme', ARGV[10], 'version', '1', 'closed', '0')
redis.call('PEXPIREAT', KEYS[5], ARGV[7])
redis.call('HSET', KEYS[6], 'kind', 'user', 'id', ARGV[1], 'name', ARGV[4], 'permissions', '',
  'expires', ARGV[6], 'session', ARGV[2])
redis.call('PEXPIREAT', KEYS[6], ARGV[6])
redis.call('ZADD', KEYS[4], ARGV[6], ARGV[2])
return changed('session_opened')
""")

END_SESSION: Final = _removal("""
-- KEYS: …, session, key, sessions of the user, homes of the user
-- ARGV: session id, closed, record kept until, user id, hash
local session = redis.call('HMGET', KEYS[3], 'closed', 'user', 'key')
if session[1] ~= '0' or session[2] ~= ARGV[4] or session[3] ~= ARGV[5] then return {'unknown', 'session'} end
redis.call('HSET', KEYS[3], 'closed', ARGV[2])
redis.call('HINCRBY', KEYS[3], 'version', 1)
redis.call('PEXPIREAT', KEYS[3], ARGV[3])
redis.call('UNLINK', KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[1])
return changed('key_ended', {user = ARGV[4], key_hash = ARGV[5], homes = KEYS[6]})
""")

TOUCH_SESSION: Final = _change("""
-- KEYS: …, session. ARGV: now. Nobody has to hear of it.
local session = redis.call('HMGET', KEYS[3], 'closed', 'last_access')
if session[1] ~= '0' then return {'unknown', 'session'} end
if tonumber(session[2]) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[3], 'last_access', ARGV[1])
  redis.call('HINCRBY', KEYS[3], 'version', 1)
end
return {'ok'}
""")

CREATE_HOME: Final = _change("""
-- KEYS: …, home, homes, members, owner, homes of the owner. ARGV: id, created, name, owner id
local id, owner = ARGV[1], ARGV[4]
if redis.call('EXISTS', KEYS[6]) == 0 then return {'unknown', 'user'} end
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'name', ARGV[3], 'owners', '1')
redis.call('ZADD', KEYS[4], id, id)
redis.call('HSET', KEYS[5], owner, 'owner ' .. ARGV[2])
redis.call('ZADD', KEYS[7], id, id)
return changed('member_added', {user = owner, home = id})
""")

ADD_MEMBER: Final = _change("""
-- KEYS: …, home, members, user, homes of the user. ARGV: home id, user id, role, now
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'home'} end
if redis.call('EXISTS', KEYS[5]) == 0 then return {'unknown', 'user'} end
if redis.call('HSETNX', KEYS[4], ARGV[2], ARGV[3] .. ' ' .. ARGV[4]) == 0 then return {'taken', 'member'} end
if ARGV[3] == 'owner' then redis.call('HINCRBY', KEYS[3], 'owners', 1) end
redis.call('ZADD', KEYS[6], ARGV[1], ARGV[1])
return changed('member_added', {user = ARGV[2], home = ARGV[1]})
""")

REMOVE_MEMBER: Final = _removal("""
-- KEYS: …, home, members, homes of the user. ARGV: home id, user id
local membership = redis.call('HGET', KEYS[4], ARGV[2])
if not membership then
  redis.call('ZREM', KEYS[5], ARGV[1])
  return {'unknown', 'member'}
end
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'home'} end
if string.sub(membership, 1, 6) == 'owner ' then
  if redis.call('HGET', KEYS[3], 'owners') == '1' then return {'last_owner'} end
  redis.call('HINCRBY', KEYS[3], 'owners', -1)
end
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[1])
return changed('member_removed', {user = ARGV[2], home = ARGV[1]})
""")

LEAVE_HOMES: Final = _removal("""
-- KEYS: …, homes of the user, then home and members of each. ARGV: user id, home ids
-- Of a deleted user: everybody has heard of that already. Also the last owner goes.
for i = 2, #ARGV do
  local home, members = KEYS[2 * i], KEYS[2 * i + 1]
  local membership = redis.call('HGET', members, ARGV[1])
  if membership and string.sub(membership, 1, 6) == 'owner ' and redis.call('EXISTS', home) == 1 then
    redis.call('HINCRBY', home, 'owners', -1)
  end
  redis.call('HDEL', members, ARGV[1])
  redis.call('ZREM', KEYS[3], ARGV[i])
end
return {'ok'}
""")

DELETE_HOME: Final = _removal("""
-- KEYS: …, home, homes, deleted homes. ARGV: id
-- From here on nobody is a member of it and no device is in it, whatever is still to be swept.
if redis.call('UNLINK', KEYS[3]) == 0 then return {'unknown', 'home'} end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[5], ARGV[1], ARGV[1])
return changed('home_deleted', {home = ARGV[1]})
""")

EMPTY_HOME: Final = _removal("""
-- KEYS: …, members of a deleted home, then the homes of each user. ARGV: home id, user ids
for i = 2, #ARGV do redis.call('ZREM', KEYS[i + 2], ARGV[1]) end
redis.call('HDEL', KEYS[3], unpack(ARGV, 2))
return {'ok'}
""")

RELEASE_DEVICES: Final = _removal("""
-- KEYS: …, devices of a deleted home, places, then each device. ARGV: home id, device ids
for i = 2, #ARGV do
  local device = redis.call('HMGET', KEYS[i + 3], 'home', 'class')
  if device[1] == ARGV[1] then
    redis.call('HSET', KEYS[i + 3], 'home', '0')
    redis.call('HSET', KEYS[4], ARGV[i], '0 ' .. device[2])
  end
end
redis.call('ZREM', KEYS[3], unpack(ARGV, 2))
return {'ok'}
""")

CREATE_DEVICE: Final = _change("""
-- KEYS: …, device, devices, places, claim codes, key, [home, devices of the home]
-- ARGV: id, created, class, name, tag, hash, claim code, home id or 0
local id = ARGV[1]
if ARGV[8] ~= '0' and redis.call('EXISTS', KEYS[8]) == 0 then return {'unknown', 'home'} end
if redis.call('HSETNX', KEYS[6], ARGV[7], id) == 0 then return {'taken', 'claim_code'} end
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'class', ARGV[3], 'name', ARGV[4], 'tag', ARGV[5],
  'key', ARGV[6], 'claim_code', ARGV[7], 'home', ARGV[8])
redis.call('ZADD', KEYS[4], id, id)
redis.call('HSET', KEYS[5], id, ARGV[8] .. ' ' .. ARGV[3])
redis.call('HSET', KEYS[7], 'kind', 'device', 'id', id, 'name', ARGV[3], 'permissions', '')
if ARGV[8] ~= '0' then redis.call('ZADD', KEYS[9], id, id) end
return changed('device_created')
""")

DELETE_DEVICE: Final = _removal("""
-- KEYS: …, device, devices, places, claim codes, key, [devices of the home]
-- ARGV: id, hash, claim code, home id
local device = redis.call('HMGET', KEYS[3], 'key', 'home')
if device[1] ~= ARGV[2] or device[2] ~= ARGV[4] then return {'moved'} end
redis.call('UNLINK', KEYS[3], KEYS[7])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[3])
if ARGV[4] ~= '0' then redis.call('ZREM', KEYS[8], ARGV[1]) end
return changed('device_deleted', {device = ARGV[1], home = ARGV[4]})
""")

MOVE_DEVICE: Final = _change("""
-- KEYS: …, device, places, new home, its devices, devices of the old home
-- ARGV: id, old home id or 0, new home id or 0
local id, old, new = ARGV[1], ARGV[2], ARGV[3]
local device = redis.call('HMGET', KEYS[3], 'home', 'class')
if device[1] ~= old then return {'moved'} end
if new ~= '0' and redis.call('EXISTS', KEYS[5]) == 0 then return {'unknown', 'home'} end
if old == new then return {'ok'} end
if old ~= '0' then redis.call('ZREM', KEYS[7], id) end
if new ~= '0' then redis.call('ZADD', KEYS[6], id, id) end
redis.call('HSET', KEYS[3], 'home', new)
redis.call('HSET', KEYS[4], id, new .. ' ' .. device[2])
return changed('device_moved', {device = id, home = new, body = old})
""")
