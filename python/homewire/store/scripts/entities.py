"""Scripts of entities. See `script.py` for what they answer.

`places` has of each entity `<home id> <number of children> <id of its parent, or nothing>`; all of a tree
are in one home.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, reading, removing

DEEPEST: Final = 100
"""Ancestors that one script walks over."""

_TREE: Final = """
local function place_of(id)
  local text = redis.call('HGET', KEYS[4], id)
  if not text then return nil end
  return string.match(text, '^(%d+) (%d+) (.*)$')
end
local function put(id, home, children, parent)
  redis.call('HSET', KEYS[4], id, home .. ' ' .. children .. ' ' .. parent)
end
local function count_child(id, by)
  local home, children, parent = place_of(id)
  put(id, home, string.format('%d', children + by), parent)
end
"""

READ_ENTITIES: Final = reading("""
-- KEYS: entities, places, deleted homes. ARGV: how many bytes of records may be reached before no other is
--       answered, ids
-- Place and record of each; nothing for what does not exist, or whose home was deleted.
local most, bytes, answer = tonumber(ARGV[1]), 0, {}
for i = 2, #ARGV do
  if bytes >= most then break end
  local place, record = redis.call('HGET', KEYS[2], ARGV[i]) or '', ''
  if place ~= '' and not redis.call('ZSCORE', KEYS[3], string.match(place, '^%d+')) then
    record = redis.call('HGET', KEYS[1], ARGV[i]) or ''
  end
  answer[2 * i - 3], answer[2 * i - 2] = place, record
  bytes = bytes + #record
end
return answer
""")

CREATE_ENTITY: Final = changing(f"""
-- KEYS: …, entities, places, ids, home, ids of the home
-- ARGV: id, home id, parent or nothing, record, most entities of a home
{_TREE}
local id, home, parent = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[6]) == 0 then return {{'unknown', 'home'}} end
if redis.call('HEXISTS', KEYS[3], id) == 1 then return {{'taken', 'entity'}} end
if redis.call('ZCARD', KEYS[7]) >= tonumber(ARGV[5]) then return {{'full'}} end
if parent ~= '' and place_of(parent) ~= home then return {{'no_parent'}} end
local over = charge('h' .. home, COST.entity + #ARGV[4], 1)
if over then return over end
if parent ~= '' then count_child(parent, 1) end
redis.call('HSET', KEYS[3], id, ARGV[4])
put(id, home, '0', parent)
redis.call('ZADD', KEYS[5], 0, id)
redis.call('ZADD', KEYS[7], 0, id)
return unheard('entity_created')
""")

UPDATE_ENTITY: Final = changing(f"""
-- KEYS: …, entities, places. ARGV: id, record as it was read, new record, parent as read, new parent
{_TREE}
local id, before, after = ARGV[1], ARGV[4], ARGV[5]
local home, children, parent = place_of(id)
if redis.call('HGET', KEYS[3], id) ~= ARGV[2] or parent ~= before then return {{'moved'}} end
if after ~= before then
  local above, steps = after, 0
  while above ~= '' do
    if above == id then return {{'circle'}} end
    steps = steps + 1
    if steps > {DEEPEST} then return {{'deep'}} end
    local place, _, next = place_of(above)
    if place ~= home then return {{'no_parent'}} end
    above = next
  end
end
local over = charge('h' .. home, #ARGV[3] - #ARGV[2], 0)
if over then return over end
if after ~= before then
  if after ~= '' then count_child(after, 1) end
  if before ~= '' then count_child(before, -1) end
  put(id, home, children, after)
end
redis.call('HSET', KEYS[3], id, ARGV[3])
return unheard('entity_updated')
""")

DELETE_ENTITY: Final = removing(f"""
-- KEYS: …, entities, places, ids, ids of the home. ARGV: id, home id
{_TREE}
local id = ARGV[1]
local home, children, parent = place_of(id)
if home ~= ARGV[2] then return {{'unknown', 'entity'}} end
if children ~= '0' then return {{'parent'}} end
if parent ~= '' then count_child(parent, -1) end
release('h' .. home, COST.entity + redis.call('HSTRLEN', KEYS[3], id), 1)
redis.call('HDEL', KEYS[3], id)
redis.call('HDEL', KEYS[4], id)
redis.call('ZREM', KEYS[5], id)
redis.call('ZREM', KEYS[6], id)
return changed('entity_moved', {{home = home, body = id}})
""")

REMOVE_ENTITIES: Final = removing("""
-- KEYS: …, entities, places, ids, ids of a deleted home. ARGV: ids
-- Whole trees go with their home, so nobody counts their children any more.
redis.call('HDEL', KEYS[3], unpack(ARGV))
redis.call('HDEL', KEYS[4], unpack(ARGV))
redis.call('ZREM', KEYS[5], unpack(ARGV))
redis.call('ZREM', KEYS[6], unpack(ARGV))
return unheard('entities_removed')
""")
