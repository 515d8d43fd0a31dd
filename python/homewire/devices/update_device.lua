-- Set fields of a device that is still in the home where the caller saw it. ARGV from 2 on: field and value of
-- each.
local device = KEYS[3]
local home_id = ARGV[1]
if redis.call('HGET', device, 'home') ~= home_id then return {'unknown', 'device'} end
redis.call('HSET', device, unpack(ARGV, 2))
return unannounced('device_updated')
