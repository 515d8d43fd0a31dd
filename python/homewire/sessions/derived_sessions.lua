-- The sessions of a user that were opened with the key of another session: id → ids of its ancestors. There are at
-- most MAX_ALL_DERIVED of them (`sessions/store.py`).
local function derived_sessions(index)
  local ids, ancestors, found = redis.call('HKEYS', index), redis.call('HVALS', index), {}
  for i, id in ipairs(ids) do found[id] = ancestors[i] end
  return found
end
