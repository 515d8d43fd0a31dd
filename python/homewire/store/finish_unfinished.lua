-- Remove a project that was swept, unless a change noted it again after it was taken.
local unfinished = KEYS[1]
local project_id, taken_until = ARGV[1], ARGV[2]
if redis.call('ZSCORE', unfinished, project_id) ~= taken_until then return 0 end
return redis.call('ZREM', unfinished, project_id)
