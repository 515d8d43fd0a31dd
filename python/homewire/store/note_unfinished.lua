-- Note a project for housekeeping, `after_ms` from now.
local unfinished = KEYS[1]
local project_id, after_ms = ARGV[1], ARGV[2]
--- @include "store/clock"
return redis.call('ZADD', unfinished, now + after_ms, project_id)
