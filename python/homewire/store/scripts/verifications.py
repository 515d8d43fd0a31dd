"""Scripts of what people prove with that an address is theirs. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.registrations import VERIFYING
from homewire.store.scripts.script import changing, removing

_LENGTHEN: Final = """
-- The proofs of a user live as long as the longest of them.
local function lengthen(lifetime)
  if redis.call('PTTL', KEYS[4]) < tonumber(lifetime) then redis.call('PEXPIRE', KEYS[4], lifetime) end
end
local function registered()
  local user = redis.call('HMGET', KEYS[3], 'created', 'invited', 'pending')
  return user[1] and (user[2] ~= '1' or user[3] == '1')
end
"""

ISSUE_TOKEN: Final = changing(f"""
-- KEYS: …, user, proofs of the user, token that it replaces, token
-- ARGV: user id, kind, hash that it replaces or nothing, hash, lifetime in ms, 1 if it is for nobody,
--       queue and letter that tell it
{_LENGTHEN}
if not registered() and ARGV[6] ~= '1' then return {{'unknown', 'user'}} end
if (redis.call('HGET', KEYS[4], ARGV[2]) or '') ~= ARGV[3] then return {{'moved'}} end
redis.call('UNLINK', KEYS[5])
redis.call('HSET', KEYS[4], ARGV[2], ARGV[4])
redis.call('SET', KEYS[6], ARGV[2] .. ' ' .. ARGV[1], 'PX', ARGV[5])
lengthen(ARGV[5])
post(ARGV[7], ARGV[8])
return unheard('token_issued')
""")

ISSUE_CODE: Final = changing(f"""
-- KEYS: …, user, proofs of the user. ARGV: hash, expires, lifetime in ms, queue and letter that tell it
{_LENGTHEN}
if not registered() then return {{'unknown', 'user'}} end
redis.call('HSET', KEYS[4], 'code', ARGV[1], 'code_expires', ARGV[2], 'code_tries', '0')
lengthen(ARGV[3])
post(ARGV[4], ARGV[5])
return unheard('code_issued')
""")

REDEEM_CODE: Final = removing(f"""
{VERIFYING}
-- KEYS: …, user, proofs of the user, users, registrations of the user, unverified users, invited users
-- ARGV: hash, now, most tries, user id
-- A try counts before it is looked at, and the last one takes the code away.
local code = redis.call('HMGET', KEYS[4], 'code', 'code_expires')
if not code[1] or tonumber(code[2]) <= tonumber(ARGV[2]) then return {{'wrong'}} end
local right = code[1] == ARGV[1]
if right or redis.call('HINCRBY', KEYS[4], 'code_tries', 1) >= tonumber(ARGV[3]) then
  redis.call('HDEL', KEYS[4], 'code', 'code_expires', 'code_tries')
end
if not right or redis.call('EXISTS', KEYS[3]) == 0 then return {{'wrong'}} end
verified(KEYS[3], ARGV[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
return unheard('code_redeemed')
""")

REDEEM_TOKEN: Final = removing(f"""
{VERIFYING}
-- KEYS: …, user, proofs of the user, token, sessions of the user, users, registrations of the user,
--       unverified users, invited users
-- ARGV: user id, kind, hash, now, new password's hash, queue and letter that tell the user
-- Whoever has the token reads the mail of that address. A new password is set only when no session is left.
if redis.call('GET', KEYS[5]) ~= ARGV[2] .. ' ' .. ARGV[1] or redis.call('HGET', KEYS[4], ARGV[2]) ~= ARGV[3]
  or redis.call('EXISTS', KEYS[3]) == 0 then return {{'wrong'}} end
if redis.call('ZCOUNT', KEYS[6], '(' .. ARGV[4], '+inf') > 0 then return {{'moved'}} end
redis.call('HSET', KEYS[3], 'password', ARGV[5])
-- Who was invited, and registered more than once, has no name yet: the newest registration gives one.
local newest = redis.call('ZRANGE', KEYS[8], -1, -1)[1]
if newest and redis.call('HGET', KEYS[3], 'name') == '' then
  redis.call('HSET', KEYS[3], 'name', string.match(newest, '^%S+ %S+ (.*)$'))
end
verified(KEYS[3], ARGV[1], KEYS[7], KEYS[8], KEYS[9], KEYS[10])
redis.call('UNLINK', KEYS[5])
redis.call('HDEL', KEYS[4], ARGV[2])
post(ARGV[6], ARGV[7])
return unheard('token_redeemed')
""")
