-- Note a project whose outbox may soon have entries.
local pending = KEYS[1]
local project_id = ARGV[1]
--- @include "store/clock"
return redis.call('ZADD', pending, now, project_id)
