-- Keep one more registration of an address whose user is unverified, or only invited. The user's name does not
-- change before the token is used. The password only lets its owner learn that the address is unverified.
local user, registrations, token = unpack(KEYS, 3, 5)
local id, unique_email, hash, expires, lifetime_ms, password_hash = unpack(ARGV, 1, 6)
local name, now, limit, channel, message = unpack(ARGV, 7, 11)
--- @include "users/store_registration"
local stored = redis.call('HMGET', user, 'unique_email', 'verified')
if stored[1] ~= unique_email or stored[2] == '1' then return {'moved'} end
store_registration(registrations, hash, password_hash, name, expires, now, tonumber(limit))
redis.call('SET', token, 'emailVerification ' .. id, 'PX', lifetime_ms)
redis.call('HSET', user, 'password', password_hash, 'pending', '1')
queue_message(channel, message)
return unannounced('user_registered_again')
