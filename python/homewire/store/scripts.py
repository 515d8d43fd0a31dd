"""The Lua of the store. Every change of several keys is one script, on one slot, all keys declared.

A script answers a list whose first word says what came of it: `ok`, or why nothing was changed:
`unknown` <noun>, `taken` <what>, `full` <session id>, `last_owner`, or `moved` (what the caller read before
is no longer so; read again). Scripts that write begin with KEYS[1] = the project and KEYS[2] = its outbox.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

_GUARD: Final = """
local project, outbox = KEYS[1], KEYS[2]
local state = redis.call('HGET', project, 'state')
if not state or state == 'deleted' then return {'unknown', 'project'} end
-- Every change ends here and nowhere else: what, and the user, home, device and key hash it is about.
-- The record for the outbox is to be added in this function; until somebody reads it, none is.
local function changed(what, user, home, device, key_hash) return {'ok'} end
"""


@dataclass(frozen=True)
class Script:
    """One script and the SHA-1 that Redis knows it by."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


def _read(body: str) -> Script:
    return Script("#!lua flags=no-writes\n" + body)


def _change(body: str) -> Script:
    return Script("#!lua\n" + _GUARD + body)


def _removal(body: str) -> Script:
    # A Redis at its memory limit must still let a key be revoked.
    return Script("#!lua flags=allow-oom\n" + _GUARD + body)


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

BURY_PROJECT: Final = Script("""#!lua flags=allow-oom
-- KEYS: project. From here on every key of the project is dead and every change refused.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'state', 'deleted') end
return 1
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
return changed('key_revoked', nil, nil, nil, ARGV[2])
""")

ROTATE_KEY: Final = _change("""
-- KEYS: …, record (of a device or project key), old key, new key. ARGV: old hash, new hash
if redis.call('HGET', KEYS[3], 'key') ~= ARGV[1] then return {'moved'} end
redis.call('RENAME', KEYS[4], KEYS[5])
redis.call('HSET', KEYS[3], 'key', ARGV[2])
return changed('key_revoked', nil, nil, nil, ARGV[1])
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
return changed('user_created', id)
""")

DELETE_USER: Final = _removal("""
-- KEYS: …, user, users, emails, phones, external keys, sessions of the user, departing users,
--       then session and key of each session. ARGV: id, number of sessions
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
for i = 10, 9 + 2 * sessions do redis.call('UNLINK', KEYS[i]) end
redis.call('UNLINK', KEYS[3], KEYS[8])
redis.call('ZREM', KEYS[4], id)
redis.call('ZADD', KEYS[9], id, id)
return changed('user_deleted', id)
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
return changed('session_opened', ARGV[1])
""")

END_SESSION: Final = _removal("""
-- KEYS: …, session, key, sessions of the user. ARGV: session id, closed, record kept until, user id, hash
local session = redis.call('HMGET', KEYS[3], 'closed', 'user', 'key')
if session[1] ~= '0' or session[2] ~= ARGV[4] or session[3] ~= ARGV[5] then return {'unknown', 'session'} end
redis.call('HSET', KEYS[3], 'closed', ARGV[2])
redis.call('HINCRBY', KEYS[3], 'version', 1)
redis.call('PEXPIREAT', KEYS[3], ARGV[3])
redis.call('UNLINK', KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[1])
return changed('key_revoked', ARGV[4], nil, nil, ARGV[5])
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
return changed('member_added', owner, id)
""")

ADD_MEMBER: Final = _change("""
-- KEYS: …, home, members, user, homes of the user. ARGV: home id, user id, role, now
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'home'} end
if redis.call('EXISTS', KEYS[5]) == 0 then return {'unknown', 'user'} end
if redis.call('HSETNX', KEYS[4], ARGV[2], ARGV[3] .. ' ' .. ARGV[4]) == 0 then return {'taken', 'member'} end
if ARGV[3] == 'owner' then redis.call('HINCRBY', KEYS[3], 'owners', 1) end
redis.call('ZADD', KEYS[6], ARGV[1], ARGV[1])
return changed('member_added', ARGV[2], ARGV[1])
""")

REMOVE_MEMBER: Final = _removal("""
-- KEYS: …, home, members, homes of the user. ARGV: home id, user id, '1' to take the last owner too
local membership = redis.call('HGET', KEYS[4], ARGV[2])
if not membership then
  redis.call('ZREM', KEYS[5], ARGV[1])
  return {'unknown', 'member'}
end
if string.sub(membership, 1, 6) == 'owner ' then
  if ARGV[3] ~= '1' and redis.call('HGET', KEYS[3], 'owners') == '1' then return {'last_owner'} end
  redis.call('HINCRBY', KEYS[3], 'owners', -1)
end
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[1])
return changed('member_removed', ARGV[2], ARGV[1])
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
return changed('device_created', nil, ARGV[8], id)
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
return changed('device_deleted', nil, ARGV[4], ARGV[1], ARGV[2])
""")
