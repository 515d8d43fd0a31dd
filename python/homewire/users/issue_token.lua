-- Store a token in the place of the one before.
local user, proofs, replaced_token, token = unpack(KEYS, 3, 6)
local user_id, kind, replaced_hash, hash, lifetime_ms, is_decoy, channel, message = unpack(ARGV, 1, 8)
--- @include "users/proofs"
if not is_registered(user) and is_decoy ~= '1' then return {'unknown', 'user'} end
if (redis.call('HGET', proofs, kind) or '') ~= replaced_hash then return {'moved'} end
redis.call('UNLINK', replaced_token)
redis.call('HSET', proofs, kind, hash)
redis.call('SET', token, kind .. ' ' .. user_id, 'PX', lifetime_ms)
keep_proofs(proofs, lifetime_ms)
queue_message(channel, message)
return unannounced('token_issued')
