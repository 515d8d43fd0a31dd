-- Take devices out of a deleted home, whose deletion was announced. KEYS from 5 on: of each device the device,
-- and what it has only in its home, together `stride` keys. ARGV from 3 on: the ids of the devices.
local home_devices, places = unpack(KEYS, 3, 4)
local home_id, stride = ARGV[1], tonumber(ARGV[2])
--- @include "devices/leaving"
local bytes, records, released = 0, 0, 0
for i = 3, #ARGV do
  local at = 5 + (i - 3) * stride
  local old_home_id, class = unpack(redis.call('HMGET', KEYS[at], 'home', 'class'))
  if old_home_id == home_id then
    local freed, values = leave(at, stride, places, ARGV[i], class)
    bytes, records, released = bytes + freed, records + values, released + 1
  end
end
release('h' .. home_id, bytes + released * COST.device, records + released)
book('0', released * COST.device, released)
redis.call('ZREM', home_devices, unpack(ARGV, 3))
return unannounced('devices_released')
