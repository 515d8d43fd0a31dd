-- Delete an entity without children.
local entities, places, ids, home_ids = unpack(KEYS, 3, 6)
local id, expected_home_id = unpack(ARGV, 1, 2)
--- @include "entities/tree"
local home_id, children, parent = place_of(id)
if home_id ~= expected_home_id then return {'unknown', 'entity'} end
if children ~= '0' then return {'parent'} end
if parent ~= '' then count_child(parent, -1) end
release('h' .. home_id, COST.entity + redis.call('HSTRLEN', entities, id), 1)
redis.call('HDEL', entities, id)
redis.call('HDEL', places, id)
redis.call('ZREM', ids, id)
redis.call('ZREM', home_ids, id)
return announce('entity_moved', {home = home_id, body = id})
