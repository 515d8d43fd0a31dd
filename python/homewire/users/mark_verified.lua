-- Mark a user's address as verified. An invited user becomes a registered one; all other registrations end.
local function mark_verified(user, id, users, registrations, unverified_users, invited_users)
  redis.call('HSET', user, 'verified', '1')
  redis.call('HDEL', user, 'invited', 'pending')
  redis.call('ZADD', users, id, id)
  redis.call('UNLINK', registrations)
  redis.call('ZREM', unverified_users, id)
  redis.call('ZREM', invited_users, id)
end
