-- Write that a node has no command sockets of devices any more. Keys, arguments and answer are those of
-- connect_devices.lua. Another node writes it with the generation 0 if this one is dead.
local node_devices = KEYS[3]
local boot_id = ARGV[1]
--- @include "presence/changing"
for i = 0, (#KEYS - 3) / 3 - 1 do
  local device, presence, home = unpack(KEYS, 3 * i + 4, 3 * i + 6)
  local id, generation, time, home_id, event = unpack(ARGV, 5 * i + 2, 5 * i + 6)
  local is_dead = generation == '0'
  if is_due(device, presence, id, is_dead and '1e15' or generation, home_id) then
    if redis.call('HDEL', presence, '@' .. boot_id) == 1 then
      note_generation(presence, is_dead and '1000000000000000' or generation)
      if redis.call('HINCRBY', presence, 'holders', -1) == 0 then
        redis.call('HSET', presence, 'disconnected', time)
        publish_in(home, home_id, event)
      end
    end
    redis.call('ZREM', node_devices, id)
  elseif redis.call('EXISTS', device) == 0 then
    redis.call('UNLINK', presence)
    redis.call('ZREM', node_devices, id)
  end
end
if #refused > 1 then return refused end
return unannounced('devices_disconnected')
