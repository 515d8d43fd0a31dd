"""Scripts of sessions. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import ENDED_KEPT, changing, removing

ENDED_KEPT_MS: Final = 60_000
"""How much later than another shard, at most, a reader may come to the user's own, where the end of a key
stands in any case."""
LEASE_MS: Final = 30_000
"""How long a request keeps its session from being ended, unless it ends before."""

_NOW: Final = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# `kind` and `name` are what the key will say of its holder.
_STORE_SESSION: Final = """
local dead = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ARGV[4], 'LIMIT', 0, 100)
if #dead > 0 then
  redis.call('ZREM', KEYS[4], unpack(dead))
  redis.call('ZREM', KEYS[7], unpack(dead))
end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[7]) then
  return {'full', redis.call('ZRANGE', KEYS[4], 0, 0)[1]}
end
redis.call('HSET', KEYS[5], unpack(ARGV, 9))
redis.call('PEXPIREAT', KEYS[5], ARGV[6])
redis.call('HSET', KEYS[6], 'kind', kind, 'id', ARGV[1], 'name', name, 'permissions', '',
  'expires', ARGV[5], 'ends', redis.call('HGET', KEYS[5], 'ends'), 'session', ARGV[2])
redis.call('PEXPIREAT', KEYS[6], ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[2])
redis.call('ZADD', KEYS[7], ARGV[4], ARGV[2])
-- Of many at once the latest counts, whichever comes last.
if tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[3], 'last_login') or 0) then
  redis.call('HSET', KEYS[3], 'last_login', ARGV[4])
end
return unheard('session_opened')
"""

OPEN_SESSION: Final = changing(f"""
-- KEYS: …, user, sessions of the user, session, key, sessions of the project
-- ARGV: user id, session id, hash, started, expires, record kept until, limit,
--       hash of the password that was right or nothing, fields and values of the record (app first)
local user = redis.call('HMGET', KEYS[3], 'created', 'invited', 'password')
if not user[1] or user[2] == '1' then return {{'unknown', 'user'}} end
if ARGV[8] ~= '' and user[3] ~= ARGV[8] then return {{'moved'}} end
local kind, name = 'user', ARGV[10]
{_STORE_SESSION}""")

OPEN_NODE_SESSION: Final = changing(f"""
-- KEYS: …, device, sessions of the device, session, key, sessions of the project
-- ARGV: as of OPEN_SESSION, of a device; the hash is that of the device's own key
local device = redis.call('HMGET', KEYS[3], 'class', 'key')
if not device[1] then return {{'unknown', 'device'}} end
if ARGV[8] ~= '' and device[2] ~= ARGV[8] then return {{'moved'}} end
local kind, name = 'device', device[1]
{_STORE_SESSION}""")

END_SESSION: Final = removing(f"""
local ENDED_KEPT_MS, ENDED_KEPT = {ENDED_KEPT_MS}, {ENDED_KEPT}
-- KEYS: …, session, key, sessions of the user or device, homes of the user, ended keys of the user,
--       sessions of the project, leases
-- ARGV: session id, closed, record kept until, user id, device id, hash, 1 if whatever the leases say
local session = redis.call('HMGET', KEYS[3], 'closed', 'user', 'key', 'expires')
if session[1] ~= '0' or session[2] ~= ARGV[4] or session[3] ~= ARGV[6]
  or tonumber(session[4]) <= tonumber(ARGV[2]) then return {{'unknown', 'session'}} end
{_NOW}
if ARGV[7] ~= '1' and redis.call('ZCOUNT', KEYS[9], '(' .. now_ms, '+inf') > 0 then return {{'leased'}} end
redis.call('HSET', KEYS[3], 'closed', ARGV[2])
redis.call('HINCRBY', KEYS[3], 'version', 1)
redis.call('PEXPIREAT', KEYS[3], ARGV[3])
redis.call('UNLINK', KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[8], ARGV[1])
if ARGV[5] ~= '0' then return changed('key_ended', {{device = ARGV[5], key_hash = ARGV[6]}}) end
-- For the records of homes that the user enters within the next minute.
redis.call('ZADD', KEYS[7], ARGV[2], string.sub(ARGV[6], 1, 16))
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', ARGV[2] - ENDED_KEPT_MS)
redis.call('ZREMRANGEBYRANK', KEYS[7], 0, -1 - ENDED_KEPT)
redis.call('PEXPIRE', KEYS[7], ENDED_KEPT_MS)
return changed('key_ended', {{user = ARGV[4], key_hash = ARGV[6], homes = KEYS[6]}})
""")

FORGET_SESSIONS: Final = removing("""
-- KEYS: …, sessions of the project, sessions of a user or device or nothing. ARGV: ids that are over
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], unpack(ARGV)) end
return unheard('sessions_forgotten')
""")

LEASE_SESSION: Final = changing(f"""
-- KEYS: …, session, leases. ARGV: name of the lease, now. By Redis' clock: whoever ends it may have another.
local session = redis.call('HMGET', KEYS[3], 'closed', 'expires')
if session[1] ~= '0' or tonumber(session[2]) <= tonumber(ARGV[2]) then return {{'unknown', 'session'}} end
{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now_ms)
redis.call('ZADD', KEYS[4], now_ms + {LEASE_MS}, ARGV[1])
redis.call('PEXPIRE', KEYS[4], {LEASE_MS})
return unheard('session_leased')
""")
