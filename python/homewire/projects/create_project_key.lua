-- Store a project key.
local record, project_keys, key = unpack(KEYS, 3, 5)
local id, hash, name, scopes, created = unpack(ARGV, 1, 5)
local over = charge('0', COST.project_key, 1)
if over then return over end
redis.call('HSET', record, 'name', name, 'permissions', scopes, 'created', created, 'key', hash)
redis.call('ZADD', project_keys, id, id)
redis.call('HSET', key, 'kind', 'project key', 'id', id, 'name', name, 'permissions', scopes)
return unannounced('project_key_created')
