-- What codes and tokens have in common. A user's proofs are one hash.
-- The proofs of a user live as long as the longest of them.
local function keep_proofs(proofs, lifetime_ms)
  if redis.call('PTTL', proofs) < tonumber(lifetime_ms) then redis.call('PEXPIRE', proofs, lifetime_ms) end
end
local function is_registered(user)
  local stored = redis.call('HMGET', user, 'created', 'invited', 'pending')
  return stored[1] and (stored[2] ~= '1' or stored[3] == '1')
end
