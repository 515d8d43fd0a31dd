"""Scripts of new addresses and numbers of users. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

BEGIN_CHANGE: Final = changing("""
-- KEYS: …, user, proofs of the user, users by address. ARGV: user id, address in its unique form, address,
--       hash of the code, expires, lifetime in ms, queue and letter that tell it
local user = redis.call('HMGET', KEYS[3], 'created', 'invited')
if not user[1] or user[2] == '1' then return {'unknown', 'user'} end
local holder = redis.call('HGET', KEYS[5], ARGV[2])
if holder and holder ~= ARGV[1] then return {'held', holder} end
redis.call('HSET', KEYS[4], 'change', ARGV[4], 'change_unique', ARGV[2], 'change_to', ARGV[3],
  'change_expires', ARGV[5], 'change_tries', '0')
-- The proofs of a user live as long as the longest of them.
if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[4], ARGV[6]) end
post(ARGV[7], ARGV[8])
return unheard('address_change_begun')
""")

FINISH_CHANGE: Final = removing("""
-- KEYS: …, user, proofs of the user, users by address, sessions of the user, registrations of the user
-- ARGV: user id, hash of the code, now, most tries, session that stays, email or phone, queue and letter that
--       tell the address before
-- A try counts before it is looked at, and the last one takes the code away. A right code is kept until it
-- counts: then only the session that gave it is left, and nothing that was sent to the old address is good.
local function forget()
  redis.call('HDEL', KEYS[4], 'change', 'change_unique', 'change_to', 'change_expires', 'change_tries')
end
local change = redis.call('HMGET', KEYS[4], 'change', 'change_unique', 'change_to', 'change_expires')
if not change[1] or tonumber(change[4]) <= tonumber(ARGV[3]) then return {'wrong'} end
if change[1] ~= ARGV[2] then
  if redis.call('HINCRBY', KEYS[4], 'change_tries', 1) >= tonumber(ARGV[4]) then forget() end
  return {'wrong'}
end
if redis.call('HEXISTS', KEYS[3], 'created') == 0 then return {'unknown', 'user'} end
local holder = redis.call('HGET', KEYS[5], change[2])
if holder and holder ~= ARGV[1] then
  forget()
  return {'held', holder}
end
local others = redis.call('ZCOUNT', KEYS[6], '(' .. ARGV[3], '+inf')
if tonumber(redis.call('ZSCORE', KEYS[6], ARGV[5]) or 0) > tonumber(ARGV[3]) then others = others - 1 end
if others > 0 then return {'moved'} end
local unique = ARGV[6] == 'email' and 'unique_email' or 'phone'
local before = redis.call('HGET', KEYS[3], unique)
if before and before ~= '' then redis.call('HDEL', KEYS[5], before) end
redis.call('HSET', KEYS[5], change[2], ARGV[1])
redis.call('HSET', KEYS[3], unique, change[2], ARGV[6], change[3])
forget()
redis.call('HDEL', KEYS[4], 'passwordReset', 'code', 'code_expires', 'code_tries')
redis.call('UNLINK', KEYS[7])
post(ARGV[7], ARGV[8])
return unheard('address_changed')
""")
