-- The home, the number of children and the parent of an entity; nil if there is none of this id.
local function place_of(id)
  local text = redis.call('HGET', places, id)
  if not text then return nil end
  return string.match(text, '^(%d+) (%d+) (.*)$')
end

local function put_place(id, home_id, children, parent)
  redis.call('HSET', places, id, home_id .. ' ' .. children .. ' ' .. parent)
end

local function count_child(id, by)
  local home_id, children, parent = place_of(id)
  put_place(id, home_id, string.format('%d', children + by), parent)
end
