-- Let a message wait for its next try. Answers 0 if another node has finished it.
local queue, waiting = KEYS[1], KEYS[2]
local group, entry, member, delay_ms = unpack(ARGV, 1, 4)
--- @include "store/clock"
if redis.call('XACK', queue, group, entry) == 0 then return 0 end
redis.call('XDEL', queue, entry)
redis.call('ZADD', waiting, now + delay_ms, member)
return 1
