"""Scripts of who is connected. See `script.py` for what they answer.

A record (`slot.device_presence`) says by a field `@<boot id>` which nodes hold command sockets of the
device, by `holders` how many nodes that are, and by `node` and `generation` which word changed it last. A
node numbers its words: one that comes late, behind a newer one of the same node, changes nothing.

They take many devices at once. For each that could not be changed the answer has its id and why, behind
`partly`: `unknown`, or `moved` when it is not in the home any more that the event was made for.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

_ONE: Final = """
local boot, refused = ARGV[1], {'partly'}
-- A home that is deactivated hears nothing.
local function tell(home, id, event)
  if id ~= '0' and not is_deactivated(home) then report(id, event) end
end
-- Whether this word about a device may be taken: it exists, is in this home, and said nothing newer.
local function is_due(place, presence, id, generation, home)
  local now_in = redis.call('HGET', place, 'home')
  if not now_in or now_in ~= home then
    refused[#refused + 1] = id
    refused[#refused + 1] = now_in and 'moved' or 'unknown'
    return false
  end
  local last = redis.call('HMGET', presence, 'node', 'generation')
  return last[1] ~= boot or tonumber(last[2]) < tonumber(generation)
end
"""

JOIN: Final = changing(f"""{_ONE}
-- KEYS: …, devices held by the node, then of each device: device, presence, home
-- ARGV: boot id, then of each device: id, generation, time, home or 0, event
for i = 0, (#KEYS - 3) / 3 - 1 do
  local id, generation, time, home, event = unpack(ARGV, 5 * i + 2, 5 * i + 6)
  local presence = KEYS[3 * i + 5]
  if is_due(KEYS[3 * i + 4], presence, id, generation, home) then
    redis.call('HSET', presence, 'node', boot, 'generation', generation)
    if redis.call('HSETNX', presence, '@' .. boot, generation) == 1 then
      redis.call('ZADD', KEYS[3], id, id)
      if redis.call('HINCRBY', presence, 'holders', 1) == 1 then
        redis.call('HSET', presence, 'connected', time)
        tell(KEYS[3 * i + 6], home, event)
      end
    end
  end
end
if #refused > 1 then return refused end
return unheard('devices_connected')
""")

LEAVE: Final = removing(f"""{_ONE}
-- The same. With the generation 0 it is somebody else's word: the node is dead.
for i = 0, (#KEYS - 3) / 3 - 1 do
  local id, generation, time, home, event = unpack(ARGV, 5 * i + 2, 5 * i + 6)
  local presence = KEYS[3 * i + 5]
  local is_dead = generation == '0'
  if is_due(KEYS[3 * i + 4], presence, id, is_dead and '1e15' or generation, home) then
    if redis.call('HDEL', presence, '@' .. boot) == 1 then
      redis.call('HSET', presence, 'node', boot, 'generation', is_dead and '1000000000000000' or generation)
      if redis.call('HINCRBY', presence, 'holders', -1) == 0 then
        redis.call('HSET', presence, 'disconnected', time)
        tell(KEYS[3 * i + 6], home, event)
      end
    end
    redis.call('ZREM', KEYS[3], id)
  elseif redis.call('EXISTS', KEYS[3 * i + 4]) == 0 then
    redis.call('UNLINK', presence)
    redis.call('ZREM', KEYS[3], id)
  end
end
if #refused > 1 then return refused end
return unheard('devices_disconnected')
""")
