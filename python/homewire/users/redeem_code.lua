-- Spend a code: the user is verified. A wrong try counts, and the last one removes the code.
local user, proofs, users, registrations, unverified_users, invited_users = unpack(KEYS, 3, 8)
local hash, now, max_tries, user_id = unpack(ARGV, 1, 4)
--- @include "users/mark_verified"
local code = redis.call('HMGET', proofs, 'code', 'code_expires')
if not code[1] or tonumber(code[2]) <= tonumber(now) then return {'wrong'} end
local right = code[1] == hash
if right or redis.call('HINCRBY', proofs, 'code_tries', 1) >= tonumber(max_tries) then
  redis.call('HDEL', proofs, 'code', 'code_expires', 'code_tries')
end
if not right or redis.call('EXISTS', user) == 0 then return {'wrong'} end
mark_verified(user, user_id, users, registrations, unverified_users, invited_users)
return unannounced('code_redeemed')
