-- Delete records of ended sessions. KEYS from 4 on: the records. ARGV from 2 on: their ids.
local ended_sessions = KEYS[3]
local now = ARGV[1]
for i = 2, #ARGV do
  local record = KEYS[2 + i]
  local session = redis.call('HMGET', record, 'closed', 'expires', 'charged')
  if session[1] and (session[1] ~= '0' or tonumber(session[2]) <= tonumber(now)) then
    release_early(session[3])
    redis.call('UNLINK', record)
  end
  redis.call('ZREM', ended_sessions, ARGV[i])
end
return unannounced('ended_sessions_forgotten')
