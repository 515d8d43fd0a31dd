-- Declare nodes dead whose leases ended. ARGV: boot id and end of the lease of each, as the caller read them. A
-- lease that was renewed since is left alone. Answers the boot ids of all dead nodes, at most 100.
local nodes = KEYS[1]
--- @include "store/clock"
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', nodes, ARGV[i]) == ARGV[i + 1] then redis.call('ZADD', nodes, -now, ARGV[i]) end
end
return redis.call('ZRANGEBYSCORE', nodes, '-inf', '(0', 'LIMIT', 0, 100)
