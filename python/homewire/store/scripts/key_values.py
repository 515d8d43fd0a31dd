"""Scripts of the key-value store. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, reading, removing

_OWNER: Final = """
-- What a value counts for: the home that it is in, or the project alone.
local function owner_of(home) return home == '0' and '0' or 'h' .. home end
"""

PUT_VALUE: Final = changing(
    _OWNER
    + """
-- KEYS: …, home or device, its values, their keys, the home that hears of it
-- ARGV: 'home' or 'device', key, value, most values, most bytes, id of that home or 0, event
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', ARGV[1]} end
if ARGV[1] == 'device' and redis.call('HGET', KEYS[3], 'home') ~= ARGV[6] then return {'moved'} end
if is_deactivated(KEYS[6]) then return {'deactivated'} end
local before = redis.call('HSTRLEN', KEYS[4], ARGV[2])
local growth = #ARGV[3] - before
local bytes = tonumber(redis.call('HGET', KEYS[4], '_bytes') or 0) + growth
if before == 0 and redis.call('ZCARD', KEYS[5]) >= tonumber(ARGV[4]) then return {'full', 'values'} end
-- What makes it smaller is always taken.
if growth > 0 and bytes > tonumber(ARGV[5]) then return {'full', 'bytes'} end
local is_new = before == 0 and 1 or 0
local over = charge(owner_of(ARGV[6]), growth + is_new * COST.value, is_new)
if over then return over end
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3], '_bytes', bytes)
redis.call('ZADD', KEYS[5], 0, ARGV[2])
if redis.call('EXISTS', KEYS[6]) == 1 then report(ARGV[6], ARGV[7]) end
return unheard('value_saved')
"""
)

DELETE_VALUE: Final = removing(
    _OWNER
    + """
-- KEYS: …, home or device, its values, their keys, the home that hears of it
-- ARGV: 'home' or 'device', key, id of that home or 0, event
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', ARGV[1]} end
if ARGV[1] == 'device' and redis.call('HGET', KEYS[3], 'home') ~= ARGV[3] then return {'moved'} end
if is_deactivated(KEYS[6]) then return {'deactivated'} end
local bytes = redis.call('HSTRLEN', KEYS[4], ARGV[2])
if bytes == 0 then return {'unknown', 'key'} end
release(owner_of(ARGV[3]), bytes + COST.value, 1)
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('HINCRBY', KEYS[4], '_bytes', -bytes)
else
  redis.call('UNLINK', KEYS[4])
end
if redis.call('EXISTS', KEYS[6]) == 1 then report(ARGV[3], ARGV[4]) end
return unheard('value_deleted')
"""
)

LIST_VALUES: Final = reading("""
-- KEYS: values, their keys. ARGV: everything below the first, the first, the last, how many to skip, how
-- many to answer, how many bytes may be reached before no other value is answered. How many there are, then
-- key and value of each. Ranks instead of LIMIT, which would walk over what it skips.
local total = redis.call('ZLEXCOUNT', KEYS[2], ARGV[2], ARGV[3])
local skip = tonumber(ARGV[4])
local count = math.min(tonumber(ARGV[5]), total - skip)
local answer = {total}
if count <= 0 then return answer end
local first = redis.call('ZLEXCOUNT', KEYS[2], '-', ARGV[1]) + skip
local keys = redis.call('ZRANGE', KEYS[2], first, first + count - 1)
local most = tonumber(ARGV[6])
if tonumber(redis.call('HGET', KEYS[1], '_bytes') or most) < most then
  local values = redis.call('HMGET', KEYS[1], unpack(keys))
  for i, key in ipairs(keys) do
    answer[2 * i], answer[2 * i + 1] = key, values[i]
  end
  return answer
end
local bytes = 0
for i, key in ipairs(keys) do
  if bytes >= most then break end
  local value = redis.call('HGET', KEYS[1], key)
  answer[2 * i], answer[2 * i + 1] = key, value
  bytes = bytes + #value
end
return answer
""")
