-- Look a key up. Answers what it identifies, or nothing if the project is disabled or deleted.
local project, key = KEYS[1], KEYS[2]
if redis.call('HGET', project, 'state') ~= 'live' then return false end
return redis.call('HMGET', key, 'kind', 'id', 'name', 'permissions', 'expires', 'session', 'ends')
