-- Spend a token: the user gets password and name of its registration, and is verified.
local user, registrations, token, users, unverified_users, invited_users = unpack(KEYS, 3, 8)
local id, token_hash, now = unpack(ARGV, 1, 3)
--- @include "users/mark_verified"
if redis.call('GET', token) ~= 'emailVerification ' .. id or redis.call('EXISTS', user) == 0 then
  return {'wrong'}
end
for _, text in ipairs(redis.call('ZRANGEBYSCORE', registrations, '(' .. now, '+inf')) do
  local hash, password, name = string.match(text, '^(%S+) (%S+) (.*)$')
  if hash == token_hash then
    redis.call('HSET', user, 'password', password == '-' and '' or password, 'name', name)
    redis.call('UNLINK', token)
    mark_verified(user, id, users, registrations, unverified_users, invited_users)
    return unannounced('email_verified')
  end
end
return {'wrong'}
