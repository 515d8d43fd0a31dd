-- End a membership. A home without members is deleted.
local home, members, homes, project_homes, deleted_homes, user = unpack(KEYS, 3, 8)
local emails, phones, invited_users, pending, left_homes = unpack(KEYS, 9, 13)
local home_id, user_id, caller_id, now, left_until, max_left = unpack(ARGV, 1, 6)
--- @include "homes/roles"
--- @include "homes/forgetting"
local membership = redis.call('HGET', members, user_id)
if not membership then redis.call('ZREM', homes, home_id) end
local refusal = refused(home, members, caller_id, user_id == caller_id and ROLE.leave_home or ROLE.remove_member)
if refusal then return refusal end
if not membership then return {'unknown', 'member'} end
if redis.call('HLEN', members) == 1 then
  redis.call('UNLINK', home)
  redis.call('ZREM', project_homes, home_id)
  tombstone(deleted_homes, home_id)
  local answer = announce('home_deleted', {home = home_id})
  answer[2] = 'home_deleted'
  return answer
end
if string.sub(membership, 1, 6) == 'owner ' then
  if redis.call('HGET', home, 'owners') == '1' then return {'last_owner'} end
  redis.call('HINCRBY', home, 'owners', -1)
end
redis.call('HDEL', members, user_id)
redis.call('ZREM', homes, home_id)
redis.call('ZREM', pending, home_id)
if user_id == caller_id then
  redis.call('ZREMRANGEBYSCORE', left_homes, '-inf', now)
  redis.call('ZADD', left_homes, left_until, home_id)
  redis.call('ZREMRANGEBYRANK', left_homes, 0, -1 - tonumber(max_left))
  redis.call('PEXPIREAT', left_homes, left_until)
end
release('h' .. home_id, COST.member, 1)
stop_paying(home_id, user_id)
if forget_invited(user_id, user, homes, emails, phones, invited_users) then release('0', COST.user, 1) end
-- In a project with access by permission a user receives a home with or without membership: no connection may
-- lose it.
return announce('member_removed', {user = user_id, home = by_permission() and 0 or home_id})
