-- A user accepts the invitation to a home.
local home, members, homes, pending, ended_keys = unpack(KEYS, 3, 7)
local home_id, user_id, limit = unpack(ARGV, 1, 3)
--- @include "homes/joining"
--- @include "homes/announce_membership"
local membership = redis.call('EXISTS', home) == 1 and redis.call('HGET', members, user_id)
if not membership then return {'unknown', 'home'} end
if not redis.call('ZSCORE', pending, home_id) then return unannounced('was_accepted') end
if is_full(homes, pending, limit) then return {'exceeded', 'homes'} end
redis.call('ZREM', pending, home_id)
redis.call('HSET', members, user_id, string.match(membership, '^%a+ %d+'))
return announce_membership(home, home_id, user_id, ended_keys)
