"""Scripts of users. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

CREATE_USER: Final = changing("""
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
return unheard('user_created')
""")

DELETE_USER: Final = removing("""
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
tombstone(KEYS[9], id)
return changed('user_deleted', {user = id, homes = KEYS[10], touched = 3 * sessions})
""")

LEAVE_HOMES: Final = removing("""
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
return unheard('user_left')
""")
