"""The script that notes the use of sessions. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing

TOUCH_SESSIONS: Final = changing("""
-- KEYS: …, then of each session its record, its key, the sessions of its user or device
-- ARGV: ms between two notes, notes in the time it slides, how long ended ones are kept,
--       then id, hash of the key and time of the use of each
-- Answers for each when it expires and when it ends in any case; 0 and 0: it is over. Nobody has to hear of
-- it: who remembers an earlier end asks again when that has come.
local every, notes, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local standings = {}
for i = 0, (#ARGV - 3) / 3 - 1 do
  local record, key, index = KEYS[3 + 3 * i], KEYS[4 + 3 * i], KEYS[5 + 3 * i]
  local id, hash, used = ARGV[4 + 3 * i], ARGV[5 + 3 * i], tonumber(ARGV[6 + 3 * i])
  local session = redis.call('HMGET', record,
    'closed', 'key', 'last_access', 'slides', 'expires', 'ends', 'version', 'charged')
  local expires, ends = session[5], session[6]
  -- A use behind its end revives nothing, whatever Redis' clock says.
  if session[1] ~= '0' or session[2] ~= hash or redis.call('EXISTS', key) == 0
    or used >= tonumber(expires) then
    expires, ends = '0', '0'
  elseif used - session[3] >= math.min(every, math.floor(session[4] / notes)) then
    local slid = used + session[4]
    if ends ~= '0' then slid = math.min(slid, tonumber(ends)) end
    local slides = slid > tonumber(expires)
    if slides then expires = string.format('%.0f', slid) end
    redis.call('HSET', record, 'last_access', used, 'version', session[7] + 1, 'expires', expires)
    if slides then
      redis.call('PEXPIREAT', record, slid + kept)
      prolong(slid + kept, session[8])
      redis.call('HSET', key, 'expires', expires)
      redis.call('PEXPIREAT', key, expires)
      redis.call('ZADD', index, 'XX', expires, id)
    end
  end
  table.insert(standings, expires)
  table.insert(standings, ends)
end
return unheard('sessions_touched', unpack(standings))
""")
