-- Count a change of the smart modules of a project, or a change that is about to happen.
local module_version, projects = unpack(KEYS, 1, 2)
local project_id = ARGV[1]
local version = redis.call('INCR', module_version)
redis.call('HSET', projects, project_id, version)
return version
