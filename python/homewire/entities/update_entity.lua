-- Replace the record and the parent of an entity that is as the caller read it.
local entities, places = unpack(KEYS, 3, 4)
local id, old_record, new_record, old_parent, new_parent = unpack(ARGV, 1, 5)
--- @include "entities/tree"
local home_id, children, parent = place_of(id)
if redis.call('HGET', entities, id) ~= old_record or parent ~= old_parent then return {'moved'} end
if new_parent ~= old_parent then
  local ancestor, steps = new_parent, 0
  while ancestor ~= '' do
    if ancestor == id then return {'circle'} end
    steps = steps + 1
    if steps > MAX_DEPTH then return {'deep'} end
    local ancestor_home, _, next_ancestor = place_of(ancestor)
    if ancestor_home ~= home_id then return {'no_parent'} end
    ancestor = next_ancestor
  end
end
local over = charge('h' .. home_id, #new_record - #old_record, 0)
if over then return over end
if new_parent ~= old_parent then
  if new_parent ~= '' then count_child(new_parent, 1) end
  if old_parent ~= '' then count_child(old_parent, -1) end
  put_place(id, home_id, children, new_parent)
end
redis.call('HSET', entities, id, new_record)
return unannounced('entity_updated')
