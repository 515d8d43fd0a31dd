-- Answers the time, then boot id and end of the lease of each node that was not declared dead.
local nodes = KEYS[1]
--- @include "store/clock"
local found = redis.call('ZRANGEBYSCORE', nodes, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
table.insert(found, 1, string.format('%d', now))
return found
