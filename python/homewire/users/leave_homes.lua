-- Take a deleted user out of homes; its control record is written already. KEYS from 4 on: home and members of each.
-- ARGV from 2 on: the ids of the homes. Answers the homes that would be left without an owner or without a member:
-- there the user stays until the next owner is known.
local user_homes = KEYS[3]
local user_id = ARGV[1]
local deserted = {'ok'}
for i = 2, #ARGV do
  local home, members = KEYS[2 * i], KEYS[2 * i + 1]
  local membership = redis.call('HGET', members, user_id)
  local owners = membership and redis.call('HGET', home, 'owners')
  local owner = membership and string.sub(membership, 1, 6) == 'owner '
  if owners and ((owner and owners == '1') or redis.call('HLEN', members) == 1) then
    table.insert(deserted, ARGV[i])
  else
    if owners and owner then redis.call('HINCRBY', home, 'owners', -1) end
    if redis.call('HDEL', members, user_id) == 1 then release('h' .. ARGV[i], COST.member, 1) end
    stop_paying(ARGV[i], user_id)
    redis.call('ZREM', user_homes, ARGV[i])
  end
end
if #deserted == 1 then return unannounced('user_left') end
return deserted
