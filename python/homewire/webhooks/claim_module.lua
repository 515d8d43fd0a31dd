-- Let one node deliver to a smart module for `lease_ms`. With `even_idle` '1' also if no delivery waits.
local module, deliveries, worker = unpack(KEYS, 3, 5)
local since, node, lease_ms, even_idle = unpack(ARGV, 1, 4)
local module_since, suspended = unpack(redis.call('HMGET', module, 'since', 'suspended'))
if module_since ~= since then return {'unknown', 'smart_module'} end
local current = redis.call('GET', worker)
if current and current ~= node then return {'held', '0'} end
local waiting = redis.call('XLEN', deliveries)
if state ~= 'live' or suspended == '1' or (waiting == 0 and even_idle ~= '1') then
  redis.call('DEL', worker)
  return {'idle', tostring(waiting)}
end
redis.call('SET', worker, node, 'PX', lease_ms)
return unannounced('module_claimed', tostring(waiting))
