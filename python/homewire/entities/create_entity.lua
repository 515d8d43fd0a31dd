-- Store a new entity of a home. `parent` is empty for an entity without one.
local entities, places, ids, home, home_ids = unpack(KEYS, 3, 7)
local id, home_id, parent, record, max_entities = unpack(ARGV, 1, 5)
--- @include "entities/tree"
if redis.call('EXISTS', home) == 0 then return {'unknown', 'home'} end
if redis.call('HEXISTS', entities, id) == 1 then return {'taken', 'entity'} end
if redis.call('ZCARD', home_ids) >= tonumber(max_entities) then return {'full'} end
if parent ~= '' and place_of(parent) ~= home_id then return {'no_parent'} end
local over = charge('h' .. home_id, COST.entity + #record, 1)
if over then return over end
if parent ~= '' then count_child(parent, 1) end
redis.call('HSET', entities, id, record)
put_place(id, home_id, '0', parent)
redis.call('ZADD', ids, 0, id)
redis.call('ZADD', home_ids, 0, id)
return unannounced('entity_created')
