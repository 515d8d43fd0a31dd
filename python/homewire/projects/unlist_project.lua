-- Move a project from the live to the deleted ones, and note it for housekeeping, `after_ms` from now.
local live_projects, deleted_projects, unfinished = unpack(KEYS, 1, 3)
local id, after_ms = ARGV[1], ARGV[2]
--- @include "store/clock"
if redis.call('ZREM', live_projects, id) == 1 then
  redis.call('ZADD', deleted_projects, id, id)
  redis.call('ZADD', unfinished, now + after_ms, id)
end
return redis.call('ZSCORE', deleted_projects, id)
