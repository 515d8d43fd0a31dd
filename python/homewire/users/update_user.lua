-- Set fields of a user. ARGV from 7 on: field and value of each.
local user, proofs, sessions, registrations = unpack(KEYS, 3, 6)
local replaced_hash, ends_sessions, spared_session, now, channel, message = unpack(ARGV, 1, 6)
local stored = redis.call('HMGET', user, 'created', 'invited', 'password')
if not stored[1] or stored[2] == '1' then return {'unknown', 'user'} end
for i = 7, #ARGV, 2 do
  if ARGV[i] == 'password' and stored[3] ~= replaced_hash then return {'outdated'} end
end
if ends_sessions == '1' then
  local others = redis.call('ZCOUNT', sessions, '(' .. now, '+inf')
  if tonumber(redis.call('ZSCORE', sessions, spared_session) or 0) > tonumber(now) then others = others - 1 end
  if others > 0 then return {'moved'} end
end
redis.call('HSET', user, unpack(ARGV, 7))
queue_message(channel, message)
for i = 7, #ARGV, 2 do
  -- With a new password no token to reset the old one may stay good: another person may have it.
  if ARGV[i] == 'password' then
    redis.call('HDEL', proofs, 'passwordReset')
    redis.call('UNLINK', registrations)
  end
end
return unannounced('user_updated')
