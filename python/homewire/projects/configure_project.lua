-- Set fields of the project. ARGV: field and value of each. The record ends nothing: it tells nodes that what they
-- cached of the project is outdated.
redis.call('HSET', project, unpack(ARGV))
return announce('project_enabled', {})
