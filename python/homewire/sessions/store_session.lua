-- The second part of opening a session: make room for it and store it. Uses the names of its script's head. `kind` and
-- `name` describe the principal of the key, `owner` is what the session is charged to.
--- @include "sessions/derived_sessions"
-- Of these sessions the one that expires first. A session without an expiry has lost its record.
local function first_to_expire(ids)
  local first, soonest
  for _, id in ipairs(ids) do
    local expiry = tonumber(redis.call('ZSCORE', sessions, id) or 0)
    if not soonest or expiry < soonest then first, soonest = id, expiry end
  end
  return first
end
-- The session that has to end before this one is opened; '' if the limit is reached and none may end. A derived
-- session is replaced before any other, and replaces no session that a login opened.
local function session_to_replace()
  local is_full = redis.call('ZCARD', sessions) >= tonumber(limit)
  if ancestors == '' and not is_full then return end
  local root, own, all_derived = string.sub(ancestors, 1, 24), {}, {}
  for id, its in pairs(derived_sessions(derived)) do
    if not string.find(ancestors, id, 1, true) then
      table.insert(all_derived, id)
      if string.sub(its, 1, 24) == root then table.insert(own, id) end
    end
  end
  if #own >= tonumber(max_derived) then return first_to_expire(own) end
  if not is_full and #all_derived < tonumber(max_all_derived) then return end
  if #own > 0 then return first_to_expire(own) end
  if #all_derived > 0 then return first_to_expire(all_derived) end
  return ancestors == '' and redis.call('ZRANGE', sessions, 0, 0)[1] or ''
end
local expired = redis.call('ZRANGEBYSCORE', sessions, '-inf', started, 'LIMIT', 0, 100)
if #expired > 0 then
  redis.call('ZREM', sessions, unpack(expired))
  redis.call('ZREM', project_sessions, unpack(expired))
  redis.call('HDEL', derived, unpack(expired))
  for _, id in ipairs(expired) do redis.call('ZADD', ended_sessions, started, id) end
  redis.call('PEXPIREAT', ended_sessions, record_expires)
end
local replaced = session_to_replace()
if replaced == '' then return {'exceeded', 'sessions'} end
if replaced then return {'full', replaced} end
local bytes = COST.session
for i = 12, #ARGV do bytes = bytes + #ARGV[i] end
-- A user over the quota can still log in, to delete something.
local over = redis.call('ZCARD', sessions) >= ALWAYS_OPENED and over_quota(owner, bytes, 1)
if over then return over end
local charged = charge_name(session, owner, bytes, 1)
book_until(record_expires, charged)
redis.call('HSET', session, 'charged', charged, unpack(ARGV, 12))
if ancestors ~= '' then redis.call('HSET', derived, session_id, ancestors) end
redis.call('PEXPIREAT', session, record_expires)
redis.call('HSET', key, 'kind', kind, 'id', holder_id, 'name', name, 'permissions', '',
  'expires', expires, 'ends', redis.call('HGET', session, 'ends'), 'session', session_id)
redis.call('PEXPIREAT', key, expires)
redis.call('ZADD', sessions, expires, session_id)
redis.call('ZADD', project_sessions, started, session_id)
-- Of logins at the same time the latest counts, in whatever order their scripts run.
if tonumber(started) > tonumber(redis.call('HGET', holder, 'last_login') or 0) then
  redis.call('HSET', holder, 'last_login', started)
end
return unannounced('session_opened')
