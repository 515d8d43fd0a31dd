-- Store the code that proves a new address, in the place of the one before.
local user, proofs, addresses = unpack(KEYS, 3, 5)
local user_id, unique_address, address, hash, expires, lifetime_ms, channel, message = unpack(ARGV, 1, 8)
--- @include "users/proofs"
local stored = redis.call('HMGET', user, 'created', 'invited')
if not stored[1] or stored[2] == '1' then return {'unknown', 'user'} end
local holder = redis.call('HGET', addresses, unique_address)
if holder and holder ~= user_id then return {'held', holder} end
redis.call('HSET', proofs, 'change', hash, 'change_unique', unique_address, 'change_to', address,
  'change_expires', expires, 'change_tries', '0')
keep_proofs(proofs, lifetime_ms)
queue_message(channel, message)
return unannounced('address_change_begun')
