-- Grant a permission to a group. `resource` is the key of the home or device, or the project for an entity.
-- KEYS from 7 on: the held permissions of each member. ARGV from 4 on: the ids of the members.
local group, permissions, members, resource = unpack(KEYS, 3, 6)
local permission, noun, max_permissions = unpack(ARGV, 1, 3)
--- @include "permissions/counting"
--- @include "groups/same_members"
if redis.call('EXISTS', group) == 0 then return {'unknown', 'group'} end
if redis.call('EXISTS', resource) == 0 then return {'unknown', noun} end
if not are_members(members, 4) then return {'moved'} end
if redis.call('ZSCORE', permissions, permission) then return {'ok'} end
if redis.call('ZCARD', permissions) >= tonumber(max_permissions) then return {'exceeded', 'group_rights'} end
-- At most: members that have the permission already are not counted again.
local count = #KEYS - 6
local over = over_quota('0', (1 + count) * COST.permission, 1 + count)
if over then return over end
redis.call('ZADD', permissions, 0, permission)
local stored = 1
for i = 7, #KEYS do
  if gain(KEYS[i], permission) then stored = stored + 1 end
end
book('0', stored * COST.permission, stored)
return unannounced('permission_granted')
