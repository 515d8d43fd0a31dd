-- Let a device be claimed until some time; 0: no longer.
local device = KEYS[3]
local until_ms = ARGV[1]
if redis.call('EXISTS', device) == 0 then return {'unknown', 'device'} end
if redis.call('HGET', project, 'on_demand') == '1' then return {'on_demand'} end
redis.call('HSET', device, 'claimable_until', until_ms)
return unannounced('device_claimable')
