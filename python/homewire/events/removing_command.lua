-- Remove a command from the queue of its device, if it is there.
local function remove_command(commands, ends, sequence)
  local bytes = redis.call('HSTRLEN', commands, sequence)
  redis.call('ZREM', ends, sequence)
  if bytes == 0 then return end
  redis.call('HDEL', commands, sequence)
  redis.call('HINCRBY', commands, 'bytes', -bytes)
end
