-- Set the role of a member. Without a new role nothing changes: the caller learns whether it would be refused.
local home, members = unpack(KEYS, 3, 4)
local home_id, user_id, new_role, caller_id = unpack(ARGV, 1, 4)
--- @include "homes/roles"
local refusal = refused(home, members, caller_id, ROLE.set_role)
if refusal then return refusal end
local membership = redis.call('HGET', members, user_id)
if not membership then return {'unknown', 'member'} end
local role, since = string.match(membership, '^(%a+) (.+)$')
if new_role == '' or role == new_role then return {'ok'} end
if role == 'owner' and redis.call('HGET', home, 'owners') == '1' then return {'last_owner'} end
redis.call('HINCRBY', home, 'owners', new_role == 'owner' and 1 or -1)
redis.call('HSET', members, user_id, new_role .. ' ' .. since)
return unannounced('role_set')
