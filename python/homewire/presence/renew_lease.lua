-- Renew the lease of a node, or begin it with `is_new` '1'. Answers 1; 0 if the node was declared dead.
local nodes = KEYS[1]
local boot_id, lease_ms, is_new = unpack(ARGV, 1, 3)
--- @include "store/clock"
local lease_end = tonumber(redis.call('ZSCORE', nodes, boot_id) or (is_new == '1' and now or -1))
if lease_end < 0 then return 0 end
redis.call('ZADD', nodes, now + lease_ms, boot_id)
return 1
