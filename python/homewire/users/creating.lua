-- The first part of storing a user: refusals, the record and its indexes. A user who was invited keeps id and
-- memberships.
local user, users, emails, phones, external_keys, registrations = unpack(KEYS, 3, 8)
local unverified_users, invited_users = KEYS[9], KEYS[10]
local id, created, name, password_hash, email, unique_email = unpack(ARGV, 1, 6)
local phone, external_key, verified, is_invited = unpack(ARGV, 7, 10)
local invited = is_invited == '1'
if invited and redis.call('HGET', user, 'invited') ~= '1' then return {'moved'} end
local unique = {email = {emails, unique_email}, phone = {phones, phone}, external_key = {external_keys, external_key}}
for what, place in pairs(unique) do
  local holder = place[2] ~= '' and redis.call('HGET', place[1], place[2])
  if holder and not (invited and holder == id) then return {'taken', what, holder} end
end
local over = not invited and charge('0', COST.user, 1)
if over then return over end
for _, place in pairs(unique) do
  if place[2] ~= '' then redis.call('HSET', place[1], place[2], id) end
end
redis.call('HSET', user, 'created', created, 'name', name, 'password', password_hash, 'email', email,
  'unique_email', unique_email, 'phone', phone, 'external_key', external_key, 'verified', verified)
redis.call('HDEL', user, 'invited', 'pending')
redis.call('ZADD', users, id, id)
redis.call('UNLINK', registrations)
