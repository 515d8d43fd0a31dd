-- Take a device out of its home. KEYS from 5 on: the device, and what it has only in its home.
local home_devices, places = unpack(KEYS, 3, 4)
local id, home_id = unpack(ARGV, 1, 2)
--- @include "devices/leaving"
local FIRST = 5
local old_home_id, class = unpack(redis.call('HMGET', KEYS[FIRST], 'home', 'class'))
if old_home_id ~= home_id then return {'unknown', 'device'} end
local bytes, records = leave(FIRST, #KEYS - FIRST + 1, places, id, class)
release('h' .. home_id, bytes + COST.device, records + 1)
book('0', COST.device, 1)
redis.call('ZREM', home_devices, id)
return announce('device_moved', {device = id, body = home_id})
