-- Delete a project key.
local record, project_keys, key = unpack(KEYS, 3, 5)
local id, hash = ARGV[1], ARGV[2]
if redis.call('HGET', record, 'key') ~= hash then return {'moved'} end
redis.call('UNLINK', record, key)
redis.call('ZREM', project_keys, id)
release('0', COST.project_key, 1)
return announce('key_ended', {key_hash = hash, project_key = id})
