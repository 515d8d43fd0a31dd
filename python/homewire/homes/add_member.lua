-- Add a user of the project to a home.
local home, members, user, homes, ended_keys, pending = unpack(KEYS, 3, 8)
local caller_homes, caller_pending, left_homes = unpack(KEYS, 9, 11)
local home_id, user_id, role, now, limit, caller_id, typed, max_pending = unpack(ARGV, 1, 8)
if redis.call('EXISTS', user) == 0 then return {'unknown', 'user'} end
--- @include "homes/adding"
local over = charge('h' .. home_id, COST.member, 1)
if over then return over end
join(home, members, homes, pending, home_id, user_id, role, now, typed)
return added()
