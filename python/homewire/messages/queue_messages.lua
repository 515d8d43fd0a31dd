-- Copy messages from an outbox to a queue. `max_length` is 0 for a queue with a sender; else the queue is bounded
-- by it and by `ttl_ms`. ARGV from 4 on: outbox position and sealed message of each.
--- @include "store/copying"
local max_length, ttl_ms = unpack(ARGV, 2, 3)
--- @include "store/clock"
local queued = copy(4, function(sealed) redis.call('XADD', destination, '*', 'm', sealed, 'n', 0, 'c', now) end)
if max_length ~= '0' then
  redis.call('XTRIM', destination, 'MAXLEN', max_length)
  redis.call('XTRIM', destination, 'MINID', now - ttl_ms)
  redis.call('PEXPIRE', destination, ttl_ms)
end
return queued
