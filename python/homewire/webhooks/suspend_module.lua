-- Suspend ('1') or resume ('0') a smart module, and close its circuit breaker.
local module = KEYS[3]
local suspended = ARGV[1]
if redis.call('EXISTS', module) == 0 then return {'unknown', 'smart_module'} end
redis.call('HSET', module, 'suspended', suspended)
redis.call('HDEL', module, 'broken_until')
return unannounced('smart_module_suspended')
