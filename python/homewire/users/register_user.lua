-- Store a user with the code or token that will verify the address. A user who was invited stays in the index of
-- invitations until then, so that the invitation does not expire sooner than others.
local proofs, token = KEYS[11], KEYS[12]
local kind, hash, expires, lifetime_ms, channel, message = unpack(ARGV, 11, 16)
--- @include "users/store_registration"
--- @include "users/creating"
if kind == 'code' then
  redis.call('HSET', proofs, kind, hash, 'code_expires', expires, 'code_tries', '0')
  redis.call('PEXPIRE', proofs, lifetime_ms)
else
  store_registration(registrations, hash, password_hash, name, expires, created, 1)
  redis.call('SET', token, kind .. ' ' .. id, 'PX', lifetime_ms)
end
if not invited then redis.call('ZADD', unverified_users, created, id) end
queue_message(channel, message)
return unannounced('user_registered')
