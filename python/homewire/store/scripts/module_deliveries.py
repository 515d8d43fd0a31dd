"""Scripts of what is to be delivered to smart modules. See `script.py` for what they answer.

`bytes` of a module counts what lies in its stream: each envelope, and `OVERHEAD` for what is around it.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

OVERHEAD: Final = 100
"""Bytes that an entry is counted with besides its envelope."""

_SIZE: Final = f"""
-- The envelope of a delivery is the value of its last field.
local function size_of(fields) return #fields[#fields] + {OVERHEAD} end
"""

_TAKE_OUT: Final = (
    _SIZE
    + """
-- Take a delivery out of its stream; its fields, or nothing if it is gone already.
local function take_out(module, deliveries, tries, entry)
  local found = redis.call('XRANGE', deliveries, entry, entry)
  redis.call('HDEL', tries, entry)
  if not found[1] then return end
  redis.call('XDEL', deliveries, entry)
  redis.call('HINCRBY', module, 'bytes', -size_of(found[1][2]))
  return found[1][2]
end
"""
)

ADD_DELIVERIES: Final = changing(
    _SIZE
    + """
-- KEYS: …, module, deliveries, dead letters
-- ARGV: since, most bytes, most dead letters, then event id and envelope of each
-- Another one of its id, made since, hears nothing of before. What finds no room is dead at once.
if redis.call('HGET', KEYS[3], 'since') ~= ARGV[1] then return {'unknown', 'smart_module'} end
local bytes, room = tonumber(redis.call('HGET', KEYS[3], 'bytes') or '0'), tonumber(ARGV[2])
local refused = 0
for i = 4, #ARGV, 2 do
  local size = size_of({ARGV[i + 1]})
  if bytes + size <= room then
    redis.call('XADD', KEYS[4], '*', 'i', ARGV[i], 'e', ARGV[i + 1])
    bytes = bytes + size
  else
    redis.call('XADD', KEYS[5], 'MAXLEN', ARGV[3], '*', 'r', 'too much waits', 't', 0,
      'i', ARGV[i], 'e', ARGV[i + 1])
    refused = refused + 1
  end
end
redis.call('HSET', KEYS[3], 'bytes', bytes)
return unheard('deliveries_added', tostring(refused))
"""
)

CLAIM_MODULE: Final = removing("""
-- KEYS: …, module, deliveries, worker. ARGV: since, node, for how many ms, 1: also if nothing waits
-- Who delivers to it: one node at a time, until it lets go or is not heard of for so long.
local module = redis.call('HMGET', KEYS[3], 'since', 'suspended')
if module[1] ~= ARGV[1] then return {'unknown', 'smart_module'} end
local worker = redis.call('GET', KEYS[5])
if worker and worker ~= ARGV[2] then return {'held', '0'} end
local waiting = redis.call('XLEN', KEYS[4])
if state ~= 'live' or module[2] == '1' or (waiting == 0 and ARGV[4] ~= '1') then
  redis.call('DEL', KEYS[5])
  return {'idle', tostring(waiting)}
end
redis.call('SET', KEYS[5], ARGV[2], 'PX', ARGV[3])
return unheard('module_claimed', tostring(waiting))
""")

RELEASE_MODULE: Final = removing("""
-- KEYS: …, worker. ARGV: node
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
return unheard('module_released')
""")

FINISH_DELIVERY: Final = removing(
    _TAKE_OUT
    + """
-- KEYS: …, module, deliveries, tries. ARGV: entry
take_out(KEYS[3], KEYS[4], KEYS[5], ARGV[1])
return unheard('delivered')
"""
)

COUNT_TRY: Final = removing("""
-- KEYS: …, deliveries, tries, module. ARGV: entry, since, why it was not taken, now
if #redis.call('XRANGE', KEYS[3], ARGV[1], ARGV[1]) == 0 then return {'gone'} end
if redis.call('HGET', KEYS[5], 'since') == ARGV[2] then
  redis.call('HSET', KEYS[5], 'last_error', ARGV[3], 'last_error_at', ARGV[4])
end
return unheard('try_counted', tostring(redis.call('HINCRBY', KEYS[4], ARGV[1], 1)))
""")

BURY_DELIVERY: Final = removing(
    _TAKE_OUT
    + """
-- KEYS: …, module, deliveries, tries, dead letters. ARGV: entry, why, tries, most dead letters
local fields = take_out(KEYS[3], KEYS[4], KEYS[5], ARGV[1])
if not fields then return {'gone'} end
redis.call('XADD', KEYS[6], 'MAXLEN', ARGV[4], '*', 'r', ARGV[2], 't', ARGV[3], unpack(fields))
return unheard('delivery_given_up')
"""
)

NOTE_BREAKER: Final = removing("""
-- KEYS: …, module. ARGV: since, open until in ms, or 0
if redis.call('HGET', KEYS[3], 'since') ~= ARGV[1] then return {'gone'} end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[3], 'broken_until')
else
  redis.call('HSET', KEYS[3], 'broken_until', ARGV[2])
end
return unheard('breaker_noted')
""")

RETRY_DEAD: Final = changing(
    _SIZE
    + """
-- KEYS: …, module, deliveries, dead letters. ARGV: dead letters; each becomes a new delivery.
-- What is none, and stands there all the same, stays: why, tries, event id and envelope are eight words.
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'smart_module'} end
local moved = 0
for i = 1, #ARGV do
  local found = redis.call('XRANGE', KEYS[5], ARGV[i], ARGV[i])
  if found[1] and #found[1][2] == 8 then
    local fields = found[1][2]
    redis.call('XADD', KEYS[4], '*', unpack(fields, 5))
    redis.call('XDEL', KEYS[5], ARGV[i])
    redis.call('HINCRBY', KEYS[3], 'bytes', size_of(fields))
    moved = moved + 1
  end
end
return unheard('dead_letters_retried', tostring(moved))
"""
)

DROP_DEAD: Final = removing("""
-- KEYS: …, module, dead letters. ARGV: dead letters
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'smart_module'} end
return unheard('dead_letters_dropped', tostring(redis.call('XDEL', KEYS[4], unpack(ARGV))))
""")
