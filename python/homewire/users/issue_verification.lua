-- Replace the token of the only registration. With several registrations it is not known which of them is the
-- caller's; if all have expired, the caller's may be the first.
local user, registrations, token, unverified_users = unpack(KEYS, 3, 6)
local id, hash, expires, lifetime_ms, now, is_decoy, channel, message = unpack(ARGV, 1, 8)
--- @include "users/store_registration"
local stored = redis.call('HMGET', user, 'created', 'invited', 'verified', 'password', 'name', 'pending')
redis.call('ZREMRANGEBYSCORE', registrations, '-inf', now)
local found = redis.call('ZRANGE', registrations, 0, -1)
if #found > 1 or (#found == 0 and (stored[6] == '1' or redis.call('ZSCORE', unverified_users, id))) then
  return {'several'}
end
local password, name = stored[4] or '', stored[5] or ''
if #found == 1 then
  password, name = string.match(found[1], '^%S+ (%S+) (.*)$')
  if password == '-' then password = '' end
elseif is_decoy ~= '1' and (not stored[1] or stored[2] == '1') then
  return {'unknown', 'user'}
end
if stored[3] == '1' then return {'unknown', 'user'} end
store_registration(registrations, hash, password, name, expires, now, 1)
redis.call('SET', token, 'emailVerification ' .. id, 'PX', lifetime_ms)
queue_message(channel, message)
return unannounced('verification_issued')
