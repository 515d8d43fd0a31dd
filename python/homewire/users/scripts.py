"""Scripts of registrations that nobody has verified. See `script.py` for what they answer.

A registration is a member of a sorted set of its user, with its end in ms as score:
`<hash of its token> <hash of its password, or -> <name>`. Nobody of them is the user yet: the one whose token
comes back is, and ends the others.

Scripts of users. See `script.py` for what they answer.
"""

from __future__ import annotations

from typing import Final

from homewire.access_changes.records import RecordType
from homewire.store.script import changing, removing

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

REGISTER_AGAIN: Final = changing(
    f"""
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
queue_message(ARGV[10], ARGV[11])
return unannounced('user_registered_again')
""",
    sends=True,
)

ISSUE_VERIFICATION: Final = changing(
    f"""
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
queue_message(ARGV[7], ARGV[8])
return unannounced('verification_issued')
""",
    sends=True,
)

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
    return unannounced('email_verified')
  end
end
return {{'wrong'}}
""")


_CREATING: Final = """
-- KEYS: …, user, users, emails, phones, external keys, registrations of the user, unverified users,
--       invited users
-- ARGV: id, created, name, password hash, email, unique form of email, phone, external key, verified,
--       1 if the id is that of somebody invited
-- Who was invited keeps id and memberships, and becomes a user here.
local id, invited = ARGV[1], ARGV[10] == '1'
if invited and redis.call('HGET', KEYS[3], 'invited') ~= '1' then return {'moved'} end
local unique = {email = {KEYS[5], ARGV[6]}, phone = {KEYS[6], ARGV[7]}, external_key = {KEYS[7], ARGV[8]}}
for what, place in pairs(unique) do
  local holder = place[2] ~= '' and redis.call('HGET', place[1], place[2])
  if holder and not (invited and holder == id) then return {'taken', what, holder} end
end
local over = not invited and charge('0', COST.user, 1)
if over then return over end
for _, place in pairs(unique) do
  if place[2] ~= '' then redis.call('HSET', place[1], place[2], id) end
end
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'name', ARGV[3], 'password', ARGV[4], 'email', ARGV[5],
  'unique_email', ARGV[6], 'phone', ARGV[7], 'external_key', ARGV[8], 'verified', ARGV[9])
redis.call('HDEL', KEYS[3], 'invited', 'pending')
redis.call('ZADD', KEYS[4], id, id)
redis.call('UNLINK', KEYS[8])
"""

CREATE_USER: Final = changing(
    f"""{_CREATING}
redis.call('ZREM', KEYS[10], id)
return unannounced('user_created')
""",
    charges=True,
)

REGISTER_USER: Final = changing(
    f"""{REGISTERING}{_CREATING}
-- KEYS, behind these: proofs of the user, token. ARGV: kind of proof, hash, expires, lifetime in ms,
--       queue and letter that tell it
-- They prove their address with this. Who was invited had nothing to prove yet, and is one of those as long
-- as the address is not verified: the invitation is not forgotten sooner than others.
local kind, hash, lifetime = ARGV[11], ARGV[12], ARGV[14]
if kind == 'code' then
  redis.call('HSET', KEYS[11], kind, hash, 'code_expires', ARGV[13], 'code_tries', '0')
  redis.call('PEXPIRE', KEYS[11], lifetime)
else
  keep_registration(KEYS[8], hash, ARGV[4], ARGV[3], ARGV[13], ARGV[2], 1)
  redis.call('SET', KEYS[12], kind .. ' ' .. id, 'PX', lifetime)
end
if not invited then redis.call('ZADD', KEYS[9], ARGV[2], id) end
queue_message(ARGV[15], ARGV[16])
return unannounced('user_registered')
""",
    sends=True,
    charges=True,
)

UPDATE_USER: Final = changing(
    """
-- KEYS: …, user, what they can prove, sessions of the user, registrations of the user
-- ARGV: hash that a new password replaces, 1 if sessions end with it, the one that does not, now, queue and
--       letter that tell the user; then field and value of each change
local user = redis.call('HMGET', KEYS[3], 'created', 'invited', 'password')
if not user[1] or user[2] == '1' then return {'unknown', 'user'} end
for i = 7, #ARGV, 2 do
  if ARGV[i] == 'password' and user[3] ~= ARGV[1] then return {'outdated'} end
end
if ARGV[2] == '1' then
  local others = redis.call('ZCOUNT', KEYS[5], '(' .. ARGV[4], '+inf')
  if tonumber(redis.call('ZSCORE', KEYS[5], ARGV[3]) or 0) > tonumber(ARGV[4]) then others = others - 1 end
  if others > 0 then return {'moved'} end
end
redis.call('HSET', KEYS[3], unpack(ARGV, 7))
queue_message(ARGV[5], ARGV[6])
for i = 7, #ARGV, 2 do
  -- Who has set a new password needs no way to reset it, least of all one that somebody else has.
  if ARGV[i] == 'password' then
    redis.call('HDEL', KEYS[4], 'passwordReset')
    redis.call('UNLINK', KEYS[6])
  end
end
return unannounced('user_updated')
""",
    sends=True,
)

REHASH_PASSWORD: Final = changing("""
-- KEYS: …, user. ARGV: hash of the password, another hash of it
if redis.call('HGET', KEYS[3], 'password') ~= ARGV[1] then return {'moved'} end
redis.call('HSET', KEYS[3], 'password', ARGV[2])
return unannounced('password_rehashed')
""")

NOTE_FAILED_LOGIN: Final = changing("""
-- KEYS: …, user or device. ARGV: now
if redis.call('HEXISTS', KEYS[3], 'created') == 0 then return {'unknown', 'user'} end
redis.call('HSET', KEYS[3], 'last_failed_login', ARGV[1])
return unannounced('login_failed')
""")

DELETE_USER: Final = removing(
    """
-- KEYS: …, user, users, emails, phones, external keys, sessions of the user, departing users,
--       homes of the user, proofs of the user, the proof's token, login tokens of the user,
--       sessions of the project, those of the user that were made with keys, registrations of the user,
--       unverified users, invited users, homes that the user has not accepted or left, then session and key
--       of each, then the token of each registration
-- ARGV: id, number of sessions, their ids, hash of the token or nothing, now if only somebody goes who never
--       came, else nothing; what the sessions are charged
local id, sessions = ARGV[1], tonumber(ARGV[2])
local unique = redis.call('HMGET', KEYS[3], 'unique_email', 'phone', 'external_key')
if not unique[1] then return {'unknown', 'user'} end
local now = ARGV[4 + sessions]
if now ~= '' then
  local came = redis.call('HMGET', KEYS[3], 'verified', 'last_login')
  if came[1] == '1' or came[2] then
    redis.call('ZREM', KEYS[17], id)
    redis.call('ZREM', KEYS[18], id)
    return {'ok', 'kept'}
  end
  if redis.call('EXISTS', KEYS[16]) == 1 then
    -- One of the registrations may still be verified.
    for i = 17, 18 do
      if redis.call('ZSCORE', KEYS[i], id) then redis.call('ZADD', KEYS[i], now, id) end
    end
    return {'ok', 'kept'}
  end
end
if redis.call('ZCARD', KEYS[8]) ~= sessions then return {'moved'} end
for i = 1, sessions do
  if not redis.call('ZSCORE', KEYS[8], ARGV[2 + i]) then return {'moved'} end
end
if (redis.call('HGET', KEYS[11], 'passwordReset') or '') ~= ARGV[3 + sessions] then return {'moved'} end
if redis.call('ZCARD', KEYS[16]) ~= #KEYS - 20 - 2 * sessions then return {'moved'} end
for i = 1, 3 do
  if unique[i] ~= '' then redis.call('HDEL', KEYS[4 + i], unique[i]) end
end
redis.call('UNLINK', KEYS[3], KEYS[8], KEYS[11], KEYS[12], KEYS[13], KEYS[15], KEYS[16],
  KEYS[19], KEYS[20])
for i = 21, #KEYS do redis.call('UNLINK', KEYS[i]) end
for i = 3, 2 + sessions do redis.call('ZREM', KEYS[14], ARGV[i]) end
for _, index in ipairs({KEYS[4], KEYS[17], KEYS[18]}) do redis.call('ZREM', index, id) end
release_together('u' .. id, 5 + sessions)
release('0', COST.user, 1)
tombstone(KEYS[9], id)
return announce('user_deleted', {user = id, homes = KEYS[10], touched = 5 * sessions})
""",
    announces={RecordType.USER_DELETED},
    charges=True,
    tombstones=True,
)

LEAVE_HOMES: Final = removing(
    """
-- KEYS: …, homes of the user, then home and members of each. ARGV: user id, home ids
-- Of a deleted user: everybody has heard of that already. Answers with the homes that would be left without
-- an owner or without anybody; there the user stays, until it is decided who follows.
local deserted = {'ok'}
for i = 2, #ARGV do
  local home, members = KEYS[2 * i], KEYS[2 * i + 1]
  local membership = redis.call('HGET', members, ARGV[1])
  local owners = membership and redis.call('HGET', home, 'owners')
  local owner = membership and string.sub(membership, 1, 6) == 'owner '
  if owners and ((owner and owners == '1') or redis.call('HLEN', members) == 1) then
    table.insert(deserted, ARGV[i])
  else
    if owners and owner then redis.call('HINCRBY', home, 'owners', -1) end
    if redis.call('HDEL', members, ARGV[1]) == 1 then release('h' .. ARGV[i], COST.member, 1) end
    stop_paying(ARGV[i], ARGV[1])
    redis.call('ZREM', KEYS[3], ARGV[i])
  end
end
if #deserted == 1 then return unannounced('user_left') end
return deserted
""",
    charges=True,
)

HAND_OVER_HOME: Final = removing(
    """
-- KEYS: …, homes of the user, home, members. ARGV: user id, home id, user id of the next owner
local membership = redis.call('HGET', KEYS[5], ARGV[1])
if membership and redis.call('EXISTS', KEYS[4]) == 1 then
  local next = redis.call('HGET', KEYS[5], ARGV[3])
  if not next then return {'moved'} end
  local owners = tonumber(redis.call('HGET', KEYS[4], 'owners'))
  if string.sub(membership, 1, 6) == 'owner ' then owners = owners - 1 end
  -- Somebody else may have become an owner since it was looked.
  if owners == 0 then
    redis.call('HSET', KEYS[5], ARGV[3], 'owner ' .. string.match(next, '^%a+ (.+)$'))
    owners = 1
  end
  redis.call('HSET', KEYS[4], 'owners', owners)
end
if redis.call('HDEL', KEYS[5], ARGV[1]) == 1 then release('h' .. ARGV[2], COST.member, 1) end
stop_paying(ARGV[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[2])
return unannounced('home_handed_over')
""",
    charges=True,
)
