-- Add the user of an address to a home. An address without a user gets an invited user.
local home, members, user, homes, ended_keys, pending = unpack(KEYS, 3, 8)
local caller_homes, caller_pending, left_homes = unpack(KEYS, 9, 11)
local addresses, unverified_users, invited_users = unpack(KEYS, 12, 14)
local home_id, user_id, role, now, limit, caller_id, typed, max_pending = unpack(ARGV, 1, 8)
local is_new, address, email, unique_email, phone, channel, message = unpack(ARGV, 9, 15)
-- The caller read before which user has the address.
local address_user = redis.call('HGET', addresses, address)
if address_user ~= (is_new ~= '1' and user_id) then return {'moved'} end
--- @include "homes/adding"
local new_users = address_user and 0 or 1
local over = over_quota('h' .. home_id, COST.member + new_users * COST.user, 1 + new_users)
if over then return over end
book('h' .. home_id, COST.member, 1)
if not address_user then
  book('0', COST.user, 1)
  redis.call('HSET', user, 'created', now, 'name', '', 'password', '', 'email', email,
    'unique_email', unique_email, 'phone', phone, 'external_key', '', 'verified', '0', 'invited', '1')
  redis.call('HSET', addresses, address, user_id)
end
-- A user who registered and never verified the address counts as invited from now on.
if not address_user or redis.call('ZREM', unverified_users, user_id) == 1 then
  redis.call('ZADD', invited_users, now, user_id)
end
join(home, members, homes, pending, home_id, user_id, role, now, typed)
queue_message(channel, message)
return added()
