-- Note smart modules that may soon have deliveries. ARGV: `<project id>:<module id>` of each.
local waiting = KEYS[1]
--- @include "store/clock"
for i = 1, #ARGV do redis.call('ZADD', waiting, now, ARGV[i]) end
return 1
