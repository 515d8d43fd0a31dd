-- Add a user to a group.
local group, permissions, members, user, user_groups, held = unpack(KEYS, 3, 8)
local group_id, user_id, max_members, max_groups = unpack(ARGV, 1, 4)
--- @include "permissions/counting"
local created, invited = unpack(redis.call('HMGET', user, 'created', 'invited'))
if redis.call('EXISTS', group) == 0 then return {'unknown', 'group'} end
if not created or invited == '1' then return {'unknown', 'user'} end
if redis.call('ZSCORE', members, user_id) then return {'ok'} end
if redis.call('ZCARD', members) >= tonumber(max_members) then return {'exceeded', 'group_members'} end
if redis.call('ZCARD', user_groups) >= tonumber(max_groups) then return {'exceeded', 'groups'} end
local granted = redis.call('ZRANGE', permissions, 0, -1)
local over = over_quota('0', COST.group_member + #granted * COST.permission, 1 + #granted)
if over then return over end
redis.call('ZADD', members, user_id, user_id)
redis.call('ZADD', user_groups, group_id, group_id)
local stored = 0
for _, permission in ipairs(granted) do
  if gain(held, permission) then stored = stored + 1 end
end
book('0', COST.group_member + stored * COST.permission, 1 + stored)
return unannounced('group_entered')
