-- Remove what is left of a deleted group without permissions. KEYS from 6 on: the groups of each member. ARGV
-- from 2 on: the ids of the members.
local deleted_groups, permissions, members = unpack(KEYS, 3, 5)
local group_id = ARGV[1]
--- @include "groups/same_members"
if redis.call('EXISTS', permissions) == 1 or not are_members(members, 2) then return {'moved'} end
local count = redis.call('ZCARD', members)
release('0', count * COST.group_member, count)
for i = 6, #KEYS do redis.call('ZREM', KEYS[i], group_id) end
redis.call('UNLINK', members)
redis.call('ZREM', deleted_groups, group_id)
return unannounced('group_dissolved')
