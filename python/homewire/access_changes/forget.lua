-- Remove projects with empty outboxes that were noted more than `ttl_ms` ago. ARGV from 2 on: project ids.
local pending = KEYS[1]
local ttl_ms = ARGV[1]
--- @include "store/clock"
for i = 2, #ARGV do
  local noted = redis.call('ZSCORE', pending, ARGV[i])
  if noted and tonumber(noted) <= now - ttl_ms then redis.call('ZREM', pending, ARGV[i]) end
end
return 1
