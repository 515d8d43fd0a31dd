"""Scripts of sessions. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import ENDED_KEPT, changing, removing

ENDED_KEPT_MS: Final = 60_000
"""How much later than another shard, at most, a reader may come to the user's own, where the end of a key
stands in any case."""


OPEN_SESSION: Final = changing("""
-- KEYS: …, user, sessions of the user, session, key
-- ARGV: user id, session id, hash, app, started, expires, record kept until, address, user agent,
--       scheme, limit, hash of the password that was right or nothing
local user = redis.call('HMGET', KEYS[3], 'created', 'invited', 'password')
if not user[1] or user[2] == '1' then return {'unknown', 'user'} end
if ARGV[12] ~= '' and user[3] ~= ARGV[12] then return {'moved'} end
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
redis.call('HSET', KEYS[3], 'last_login', ARGV[5])
return unheard('session_opened')
""")

END_SESSION: Final = removing(f"""
local ENDED_KEPT_MS, ENDED_KEPT = {ENDED_KEPT_MS}, {ENDED_KEPT}
-- KEYS: …, session, key, sessions of the user, homes of the user, ended keys of the user
-- ARGV: session id, closed, record kept until, user id, hash
local session = redis.call('HMGET', KEYS[3], 'closed', 'user', 'key')
if session[1] ~= '0' or session[2] ~= ARGV[4] or session[3] ~= ARGV[5] then
  return {{'unknown', 'session'}}
end
redis.call('HSET', KEYS[3], 'closed', ARGV[2])
redis.call('HINCRBY', KEYS[3], 'version', 1)
redis.call('PEXPIREAT', KEYS[3], ARGV[3])
redis.call('UNLINK', KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[1])
-- For the records of homes that the user enters within the next minute.
redis.call('ZADD', KEYS[7], ARGV[2], string.sub(ARGV[5], 1, 16))
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', ARGV[2] - ENDED_KEPT_MS)
redis.call('ZREMRANGEBYRANK', KEYS[7], 0, -1 - ENDED_KEPT)
redis.call('PEXPIRE', KEYS[7], ENDED_KEPT_MS)
return changed('key_ended', {{user = ARGV[4], key_hash = ARGV[5], homes = KEYS[6]}})
""")

TOUCH_SESSION: Final = changing("""
-- KEYS: …, session. ARGV: now. Nobody has to hear of it.
local session = redis.call('HMGET', KEYS[3], 'closed', 'last_access')
if session[1] ~= '0' then return {'unknown', 'session'} end
if tonumber(session[2]) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[3], 'last_access', ARGV[1])
  redis.call('HINCRBY', KEYS[3], 'version', 1)
end
return unheard('session_touched')
""")
