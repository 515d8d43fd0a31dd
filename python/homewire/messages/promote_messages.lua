-- Move due messages back to the end of the queue, and remove malformed ones.
local queue, waiting = KEYS[1], KEYS[2]
local max_messages = ARGV[1]
--- @include "store/clock"
local due = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, max_messages)
for _, each in ipairs(due) do
  local tries, since, sealed = string.match(each, '^(%d+) (%d+) (.+)$')
  if sealed then redis.call('XADD', queue, '*', 'm', sealed, 'n', tries, 'c', since) end
  redis.call('ZREM', waiting, each)
end
return #due
