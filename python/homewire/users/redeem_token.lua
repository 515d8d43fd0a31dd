-- Spend a token to reset the password. The token was sent to the user's address, so the address is verified, too.
-- The new password is set only when no session is left.
local user, proofs, token, sessions, users, registrations = unpack(KEYS, 3, 8)
local unverified_users, invited_users = KEYS[9], KEYS[10]
local user_id, kind, hash, now, password_hash, channel, message = unpack(ARGV, 1, 7)
--- @include "users/mark_verified"
if redis.call('GET', token) ~= kind .. ' ' .. user_id or redis.call('HGET', proofs, kind) ~= hash
  or redis.call('EXISTS', user) == 0 then return {'wrong'} end
if redis.call('ZCOUNT', sessions, '(' .. now, '+inf') > 0 then return {'moved'} end
redis.call('HSET', user, 'password', password_hash)
-- An invited user with several registrations has no name yet: the newest registration gives one.
local newest = redis.call('ZRANGE', registrations, -1, -1)[1]
if newest and redis.call('HGET', user, 'name') == '' then
  redis.call('HSET', user, 'name', string.match(newest, '^%S+ %S+ (.*)$'))
end
mark_verified(user, user_id, users, registrations, unverified_users, invited_users)
redis.call('UNLINK', token)
redis.call('HDEL', proofs, kind)
queue_message(channel, message)
return unannounced('token_redeemed')
