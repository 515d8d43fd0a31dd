-- End a session and those that were derived from it. KEYS from 8 on: session, key and leases of each; then the ended
-- sessions of the user or device. ARGV from 6 on: id and key hash of each, those of the session itself first.
local sessions, homes, ended_keys, project_sessions, derived, session = unpack(KEYS, 3, 8)
local closed, record_expires, user, device, despite_leases, session_id, session_hash = unpack(ARGV, 1, 7)
local ended_sessions = table.remove(KEYS)
--- @include "sessions/derived_sessions"
local stored = redis.call('HMGET', session, 'closed', 'user', 'key', 'expires')
if stored[1] ~= '0' or stored[2] ~= user or stored[3] ~= session_hash
  or tonumber(stored[4]) <= tonumber(closed) then return {'unknown', 'session'} end
local given = {}
for i = 6, #ARGV, 2 do given[ARGV[i]] = true end
for id, ancestors in pairs(derived_sessions(derived)) do
  -- It was opened after the caller read the derived sessions.
  if string.find(ancestors, session_id, 1, true) and not given[id] then return {'moved'} end
end
--- @include "store/clock"
for i = 10, #KEYS, 3 do
  if despite_leases ~= '1' and redis.call('ZCOUNT', KEYS[i], '(' .. now, '+inf') > 0 then
    return {'leased'}
  end
end
-- Each derived session is some 20 elements.
local listed_homes = user ~= '0' and listed(homes, 10 * (#ARGV - 7)) or ''
local function end_one(i)
  local record, key, id, hash = KEYS[8 + 3 * i], KEYS[9 + 3 * i], ARGV[6 + 2 * i], ARGV[7 + 2 * i]
  redis.call('ZREM', sessions, id)
  redis.call('ZREM', project_sessions, id)
  redis.call('HDEL', derived, id)
  local found = redis.call('HMGET', record, 'closed', 'key', 'charged')
  if found[1] ~= '0' or found[2] ~= hash then return false end
  redis.call('HSET', record, 'closed', closed)
  redis.call('HINCRBY', record, 'version', 1)
  redis.call('PEXPIREAT', record, record_expires)
  prolong(record_expires, found[3])
  redis.call('ZADD', ended_sessions, closed, id)
  redis.call('UNLINK', key)
  -- For the records of homes that the user enters within the next minute.
  if user ~= '0' then redis.call('ZADD', ended_keys, closed, string.sub(hash, 1, 16)) end
  return true
end
for i = 1, (#ARGV - 7) / 2 do
  if end_one(i) then announce('key_ended', {user = user, key_hash = ARGV[7 + 2 * i], listed = listed_homes}) end
end
end_one(0)
redis.call('PEXPIREAT', ended_sessions, record_expires)
-- Whether there are too many ended sessions now.
local function ended_with(about)
  local answer = announce('key_ended', about)
  answer[2] = tostring(redis.call('ZCARD', ended_sessions))
  return answer
end
if device ~= '0' then return ended_with({device = device, key_hash = session_hash}) end
redis.call('ZREMRANGEBYSCORE', ended_keys, '-inf', closed - ENDED_KEY_TTL_MS)
redis.call('ZREMRANGEBYRANK', ended_keys, 0, -1 - MAX_ENDED_KEYS)
redis.call('PEXPIRE', ended_keys, ENDED_KEY_TTL_MS)
return ended_with({user = user, key_hash = session_hash, listed = listed_homes})
