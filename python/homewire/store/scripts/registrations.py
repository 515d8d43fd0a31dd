"""Scripts of registrations that nobody has verified. See `script.py` for what they answer.

A registration is a member of a sorted set of its user, with its end in ms as score:
`<hash of its token> <hash of its password, or -> <name>`. Nobody of them is the user yet: the one whose token
comes back is, and ends the others.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

REGISTERING: Final = """
-- Keep a registration, and at most so many of them: the oldest go. Their tokens are good for nothing then.
local function keep_registration(registrations, hash, password, name, expires, now, most)
  redis.call('ZREMRANGEBYSCORE', registrations, '-inf', now)
  local text = hash .. ' ' .. (password == '' and '-' or password) .. ' ' .. name
  redis.call('ZADD', registrations, expires, text)
  redis.call('ZREMRANGEBYRANK', registrations, 0, -1 - most)
  redis.call('PEXPIREAT', registrations, redis.call('ZRANGE', registrations, -1, -1, 'WITHSCORES')[2])
end
"""

REGISTER_AGAIN: Final = changing(f"""
{REGISTERING}
-- KEYS: …, user, registrations of the user, token
-- ARGV: id, unique form of email, hash of the token, expires, lifetime in ms, password hash, name, now,
--       most registrations, queue and letter that tell the token
-- Of an address whose user is unverified, or only invited. Nothing of the user is another's before the token
-- comes back; the password only tells its owner that the address is to be verified.
local user = redis.call('HMGET', KEYS[3], 'unique_email', 'verified')
if user[1] ~= ARGV[2] or user[2] == '1' then return {{'moved'}} end
keep_registration(KEYS[4], ARGV[3], ARGV[6], ARGV[7], ARGV[4], ARGV[8], tonumber(ARGV[9]))
redis.call('SET', KEYS[5], 'emailVerification ' .. ARGV[1], 'PX', ARGV[5])
redis.call('HSET', KEYS[3], 'password', ARGV[6], 'pending', '1')
post(ARGV[10], ARGV[11])
return unheard('user_registered_again')
""")

ISSUE_VERIFICATION: Final = changing(f"""
{REGISTERING}
-- KEYS: …, user, registrations of the user, token, unverified users
-- ARGV: id, hash of the token, expires, lifetime in ms, now, 1 if it is for nobody, queue and letter that
--       tell it
-- A new token for the only registration. With several nobody knows which of them is from the one who asks; if
-- all have expired, it may be the first that is.
local user = redis.call('HMGET', KEYS[3], 'created', 'invited', 'verified', 'password', 'name', 'pending')
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ARGV[5])
local found = redis.call('ZRANGE', KEYS[4], 0, -1)
if #found > 1 or (#found == 0 and (user[6] == '1' or redis.call('ZSCORE', KEYS[6], ARGV[1]))) then
  return {{'several'}}
end
local password, name = user[4] or '', user[5] or ''
if #found == 1 then
  password, name = string.match(found[1], '^%S+ (%S+) (.*)$')
  if password == '-' then password = '' end
elseif ARGV[6] ~= '1' and (not user[1] or user[2] == '1') then
  return {{'unknown', 'user'}}
end
if user[3] == '1' then return {{'unknown', 'user'}} end
keep_registration(KEYS[4], ARGV[2], password, name, ARGV[3], ARGV[5], 1)
redis.call('SET', KEYS[5], 'emailVerification ' .. ARGV[1], 'PX', ARGV[4])
post(ARGV[7], ARGV[8])
return unheard('verification_issued')
""")

VERIFYING: Final = """
-- The address is its user's: who was invited becomes one, and no other registration is left.
local function verified(user, id, users, registrations, unverified, invited)
  redis.call('HSET', user, 'verified', '1')
  redis.call('HDEL', user, 'invited', 'pending')
  redis.call('ZADD', users, id, id)
  redis.call('UNLINK', registrations)
  redis.call('ZREM', unverified, id)
  redis.call('ZREM', invited, id)
end
"""

VERIFY_EMAIL: Final = removing(f"""
{VERIFYING}
-- KEYS: …, user, registrations of the user, token, users, unverified users, invited users
-- ARGV: id, hash of the token, now
if redis.call('GET', KEYS[5]) ~= 'emailVerification ' .. ARGV[1] or redis.call('EXISTS', KEYS[3]) == 0 then
  return {{'wrong'}}
end
for _, text in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[3], '+inf')) do
  local hash, password, name = string.match(text, '^(%S+) (%S+) (.*)$')
  if hash == ARGV[2] then
    redis.call('HSET', KEYS[3], 'password', password == '-' and '' or password, 'name', name)
    redis.call('UNLINK', KEYS[5])
    verified(KEYS[3], ARGV[1], KEYS[6], KEYS[4], KEYS[7], KEYS[8])
    return unheard('email_verified')
  end
end
return {{'wrong'}}
""")
