-- Take a deleted user out of a home, where another member becomes owner if there is no other one.
local user_homes, home, members = unpack(KEYS, 3, 5)
local user_id, home_id, next_owner_id = unpack(ARGV, 1, 3)
local membership = redis.call('HGET', members, user_id)
if membership and redis.call('EXISTS', home) == 1 then
  local next_owner = redis.call('HGET', members, next_owner_id)
  if not next_owner then return {'moved'} end
  local owners = tonumber(redis.call('HGET', home, 'owners'))
  if string.sub(membership, 1, 6) == 'owner ' then owners = owners - 1 end
  -- Another member may have become an owner since the caller read the members.
  if owners == 0 then
    redis.call('HSET', members, next_owner_id, 'owner ' .. string.match(next_owner, '^%a+ (.+)$'))
    owners = 1
  end
  redis.call('HSET', home, 'owners', owners)
end
if redis.call('HDEL', members, user_id) == 1 then release('h' .. home_id, COST.member, 1) end
stop_paying(home_id, user_id)
redis.call('ZREM', user_homes, home_id)
return unannounced('home_handed_over')
