-- Remove a deleted user from all groups, with all permissions. The deletion was announced. KEYS from 6 on: the
-- members of each group.
local user_groups, grants, held = unpack(KEYS, 3, 5)
local user_id = ARGV[1]
local groups, permissions = 0, redis.call('ZCARD', grants) + redis.call('HLEN', held)
for i = 6, #KEYS do groups = groups + redis.call('ZREM', KEYS[i], user_id) end
release('0', groups * COST.group_member + permissions * COST.permission, groups + permissions)
redis.call('UNLINK', user_groups, grants, held)
return unannounced('groups_quit')
