-- Remove a user from a group.
local group, permissions, members, user_groups, held, device_places, entity_places = unpack(KEYS, 3, 9)
local group_id, user_id = unpack(ARGV, 1, 2)
--- @include "permissions/counting"
--- @include "permissions/ending"
if redis.call('EXISTS', group) == 0 then return {'unknown', 'group'} end
if redis.call('ZREM', members, user_id) == 0 then return {'unknown', 'member'} end
redis.call('ZREM', user_groups, group_id)
local lost = 0
for _, permission in ipairs(redis.call('ZRANGE', permissions, 0, -1)) do
  if lose(held, permission) then
    lost = lost + 1
    announce_end(permission, {user_id}, device_places, entity_places)
  end
end
release('0', COST.group_member + lost * COST.permission, 1 + lost)
return unannounced('group_quit')
