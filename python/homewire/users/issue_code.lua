-- Store a code in the place of the one before.
local user, proofs = KEYS[3], KEYS[4]
local hash, expires, lifetime_ms, channel, message = unpack(ARGV, 1, 5)
--- @include "users/proofs"
if not is_registered(user) then return {'unknown', 'user'} end
redis.call('HSET', proofs, 'code', hash, 'code_expires', expires, 'code_tries', '0')
keep_proofs(proofs, lifetime_ms)
queue_message(channel, message)
return unannounced('code_issued')
