-- Revoke the grant of a permission from a user.
local grants, held, device_places, entity_places = unpack(KEYS, 3, 6)
local permission, user_id = unpack(ARGV, 1, 2)
--- @include "permissions/counting"
--- @include "permissions/ending"
if redis.call('ZREM', grants, permission) == 0 then return {'unknown', 'permission'} end
local is_lost = lose(held, permission)
local freed = is_lost and 2 or 1
release('0', freed * COST.permission, freed)
if not is_lost then return {'ok'} end
return announce_end(permission, {user_id}, device_places, entity_places)
