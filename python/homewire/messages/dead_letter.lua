-- Make a message a dead letter. Answers 0 if another node has finished it.
local queue, dead_letters = KEYS[1], KEYS[2]
local group, entry, sealed, since, problem, max_length, ttl_ms = unpack(ARGV, 1, 7)
--- @include "store/clock"
if redis.call('XACK', queue, group, entry) == 0 then return 0 end
redis.call('XDEL', queue, entry)
redis.call('XADD', dead_letters, 'MAXLEN', max_length, '*', 'm', sealed, 'c', since, 'p', problem)
redis.call('XTRIM', dead_letters, 'MINID', now - ttl_ms)
redis.call('PEXPIRE', dead_letters, ttl_ms)
return 1
