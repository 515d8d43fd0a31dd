-- Store a new group.
local group, groups = unpack(KEYS, 3, 4)
local id, name, created = unpack(ARGV, 1, 3)
local over = charge('0', COST.group, 1)
if over then return over end
redis.call('HSET', group, 'name', name, 'created', created)
redis.call('ZADD', groups, id, id)
return unannounced('group_created')
