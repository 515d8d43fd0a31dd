-- Note the use of sessions, which extends their expiry. KEYS: record, key and sessions of the holder of each. ARGV from
-- 4 on: id, key hash and time of use of each. Answers expiry and absolute end of each; 0 and 0: it is over. No record
-- is written: a node with an earlier expiry reads again at that time.
local interval_ms, notes_per_lifetime, ended_ttl_ms = unpack(ARGV, 1, 3)
local interval, notes = tonumber(interval_ms), tonumber(notes_per_lifetime)
local answer = {}
for i = 0, (#ARGV - 3) / 3 - 1 do
  local record, key, index = KEYS[3 + 3 * i], KEYS[4 + 3 * i], KEYS[5 + 3 * i]
  local id, hash, used = ARGV[4 + 3 * i], ARGV[5 + 3 * i], tonumber(ARGV[6 + 3 * i])
  local session = redis.call('HMGET', record,
    'closed', 'key', 'last_access', 'slides', 'expires', 'ends', 'version', 'charged')
  local expires, ends = session[5], session[6]
  -- A use after the expiry does not revive the session, whatever the clock of Redis says.
  if session[1] ~= '0' or session[2] ~= hash or redis.call('EXISTS', key) == 0
    or used >= tonumber(expires) then
    expires, ends = '0', '0'
  elseif used - session[3] >= math.min(interval, math.floor(session[4] / notes)) then
    local extended = used + session[4]
    if ends ~= '0' then extended = math.min(extended, tonumber(ends)) end
    local is_later = extended > tonumber(expires)
    if is_later then expires = string.format('%.0f', extended) end
    redis.call('HSET', record, 'last_access', used, 'version', session[7] + 1, 'expires', expires)
    if is_later then
      redis.call('PEXPIREAT', record, extended + ended_ttl_ms)
      prolong(extended + ended_ttl_ms, session[8])
      redis.call('HSET', key, 'expires', expires)
      redis.call('PEXPIREAT', key, expires)
      redis.call('ZADD', index, 'XX', expires, id)
    end
  end
  table.insert(answer, expires)
  table.insert(answer, ends)
end
return unannounced('sessions_touched', unpack(answer))
