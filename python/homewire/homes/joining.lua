-- Whether a user has reached the limit of homes. Invitations that the user has not accepted do not count.
local function is_full(homes, pending, limit)
  return limit ~= '0' and redis.call('ZCARD', homes) - redis.call('ZCARD', pending) >= tonumber(limit)
end

-- Write a membership. `typed`: what the inviter entered, if the user has to accept the invitation.
local function join(home, members, homes, pending, home_id, user_id, role, now, typed)
  redis.call('HSET', members, user_id, role .. ' ' .. now .. (typed and ' ' .. typed or ''))
  if role == 'owner' then redis.call('HINCRBY', home, 'owners', 1) end
  redis.call('ZADD', homes, home_id, home_id)
  if typed then redis.call('ZADD', pending, home_id, home_id) end
end
