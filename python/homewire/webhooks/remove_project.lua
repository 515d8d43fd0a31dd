-- Remove a project that had no smart modules at `version`, unless they changed since.
local projects = KEYS[1]
local project_id, version = unpack(ARGV, 1, 2)
if redis.call('HGET', projects, project_id) == version then return redis.call('HDEL', projects, project_id) end
return 0
