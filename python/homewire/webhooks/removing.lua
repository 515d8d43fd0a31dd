-- Remove a delivery from the stream of its module. Answers its fields; nil if it was removed before.
local function remove(module, deliveries, tries, entry)
  local found = redis.call('XRANGE', deliveries, entry, entry)
  redis.call('HDEL', tries, entry)
  if not found[1] then return end
  redis.call('XDEL', deliveries, entry)
  redis.call('HINCRBY', module, 'bytes', -size_of(found[1][2]))
  return found[1][2]
end
