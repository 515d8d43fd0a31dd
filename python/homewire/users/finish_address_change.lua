-- Spend a code: the new address replaces the one before. A wrong try counts, and the last one removes the code.
-- A right code stays until no other session is left. `field` is email or phone.
local user, proofs, addresses, sessions, registrations = unpack(KEYS, 3, 7)
local user_id, hash, now, max_tries, spared_session, field, channel, message = unpack(ARGV, 1, 8)
local function forget()
  redis.call('HDEL', proofs, 'change', 'change_unique', 'change_to', 'change_expires', 'change_tries')
end
local change = redis.call('HMGET', proofs, 'change', 'change_unique', 'change_to', 'change_expires')
if not change[1] or tonumber(change[4]) <= tonumber(now) then return {'wrong'} end
if change[1] ~= hash then
  if redis.call('HINCRBY', proofs, 'change_tries', 1) >= tonumber(max_tries) then forget() end
  return {'wrong'}
end
if redis.call('HEXISTS', user, 'created') == 0 then return {'unknown', 'user'} end
local holder = redis.call('HGET', addresses, change[2])
if holder and holder ~= user_id then
  forget()
  return {'held', holder}
end
local others = redis.call('ZCOUNT', sessions, '(' .. now, '+inf')
if tonumber(redis.call('ZSCORE', sessions, spared_session) or 0) > tonumber(now) then others = others - 1 end
if others > 0 then return {'moved'} end
local unique = field == 'email' and 'unique_email' or 'phone'
local before = redis.call('HGET', user, unique)
if before and before ~= '' then redis.call('HDEL', addresses, before) end
redis.call('HSET', addresses, change[2], user_id)
redis.call('HSET', user, unique, change[2], field, change[3])
forget()
-- What was sent to the address before is good for nothing.
redis.call('HDEL', proofs, 'passwordReset', 'code', 'code_expires', 'code_tries')
redis.call('UNLINK', registrations)
queue_message(channel, message)
return unannounced('address_changed')
