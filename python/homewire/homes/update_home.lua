-- Set fields of a home. ARGV from 2 on: field and value of each.
local home, members = unpack(KEYS, 3, 4)
local caller_id = ARGV[1]
--- @include "homes/roles"
local refusal = refused(home, members, caller_id, ROLE.change_home)
if refusal then return refusal end
redis.call('HSET', home, unpack(ARGV, 2))
return unannounced('home_updated')
