-- Delete a home. From here on it has no members and devices for readers; housekeeping removes their records.
-- ARGV from 3 on: the ids of all its members; without ids, its members are not compared.
local home, members, project_homes, deleted_homes = unpack(KEYS, 3, 6)
local home_id, caller_id = unpack(ARGV, 1, 2)
--- @include "homes/roles"
local refusal = refused(home, members, caller_id, ROLE.delete_home)
if refusal then return refusal end
if #ARGV > 2 then
  -- A member may have joined after the caller read them.
  if redis.call('HLEN', members) ~= #ARGV - 2 then return {'moved'} end
  for i = 3, #ARGV do
    if redis.call('HEXISTS', members, ARGV[i]) == 0 then return {'moved'} end
  end
end
redis.call('UNLINK', home)
redis.call('ZREM', project_homes, home_id)
tombstone(deleted_homes, home_id)
return announce('home_deleted', {home = home_id})
