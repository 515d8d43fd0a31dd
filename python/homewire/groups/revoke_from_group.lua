-- Revoke a permission from a group, or from a deleted one. KEYS from 8 on: the held permissions of each member.
-- ARGV from 2 on: the ids of the members.
local group, permissions, members, device_places, entity_places = unpack(KEYS, 3, 7)
local permission = ARGV[1]
--- @include "permissions/counting"
--- @include "permissions/ending"
--- @include "groups/same_members"
if not redis.call('ZSCORE', permissions, permission) then
  return {'unknown', redis.call('EXISTS', group) == 1 and 'permission' or 'group'}
end
if not are_members(members, 2) then return {'moved'} end
redis.call('ZREM', permissions, permission)
local lost = {}
for i = 2, #ARGV do
  if lose(KEYS[6 + i], permission) then table.insert(lost, ARGV[i]) end
end
release('0', (1 + #lost) * COST.permission, 1 + #lost)
if #lost == 0 then return unannounced('permission_revoked') end
return announce_end(permission, lost, device_places, entity_places)
