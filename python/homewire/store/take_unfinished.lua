-- Take at most `count` projects that are due, for `duration_ms`. Answers until when, then their ids.
local unfinished = KEYS[1]
local count, duration_ms = ARGV[1], ARGV[2]
--- @include "store/clock"
local taken = redis.call('ZRANGEBYSCORE', unfinished, '-inf', now, 'LIMIT', 0, count)
for _, project_id in ipairs(taken) do redis.call('ZADD', unfinished, now + duration_ms, project_id) end
table.insert(taken, 1, now + duration_ms)
return taken
