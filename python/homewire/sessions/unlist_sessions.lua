-- Remove expired sessions from the index of the project and, if they are given, from those of a user or device. ARGV:
-- the ids of the sessions.
local project_sessions, sessions, derived = unpack(KEYS, 3, 5)
redis.call('ZREM', project_sessions, unpack(ARGV))
if sessions then
  redis.call('ZREM', sessions, unpack(ARGV))
  redis.call('HDEL', derived, unpack(ARGV))
end
return unannounced('sessions_forgotten')
