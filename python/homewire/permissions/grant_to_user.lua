-- Grant a permission to a user. `resource` is the key of the home or device, or the project for an entity.
local user, grants, held, resource = unpack(KEYS, 3, 6)
local permission, noun, max_grants = unpack(ARGV, 1, 3)
--- @include "permissions/counting"
local created, invited = unpack(redis.call('HMGET', user, 'created', 'invited'))
if not created or invited == '1' then return {'unknown', 'user'} end
if redis.call('EXISTS', resource) == 0 then return {'unknown', noun} end
if redis.call('ZSCORE', grants, permission) then return {'ok'} end
if redis.call('ZCARD', grants) >= tonumber(max_grants) then return {'exceeded', 'grants'} end
local over = over_quota('0', 2 * COST.permission, 2)
if over then return over end
redis.call('ZADD', grants, 0, permission)
local stored = gain(held, permission) and 2 or 1
book('0', stored * COST.permission, stored)
return unannounced('permission_granted')
