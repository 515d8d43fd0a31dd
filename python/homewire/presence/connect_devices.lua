-- Write that a node has command sockets of devices. KEYS from 4 on: device, presence and home of each. ARGV from
-- 2 on: id, generation, time, home id or 0, and event of each.
-- Answers `partly` with id and reason of each device that was not changed: `unknown`, or `moved` to another home.
local node_devices = KEYS[3]
local boot_id = ARGV[1]
--- @include "presence/changing"
for i = 0, (#KEYS - 3) / 3 - 1 do
  local device, presence, home = unpack(KEYS, 3 * i + 4, 3 * i + 6)
  local id, generation, time, home_id, event = unpack(ARGV, 5 * i + 2, 5 * i + 6)
  if is_due(device, presence, id, generation, home_id) then
    note_generation(presence, generation)
    if redis.call('HSETNX', presence, '@' .. boot_id, generation) == 1 then
      redis.call('ZADD', node_devices, id, id)
      if redis.call('HINCRBY', presence, 'holders', 1) == 1 then
        redis.call('HSET', presence, 'connected', time)
        publish_in(home, home_id, event)
      end
    end
  end
end
if #refused > 1 then return refused end
return unannounced('devices_connected')
