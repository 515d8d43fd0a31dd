-- Let other nodes deliver to a smart module.
local worker = KEYS[3]
local node = ARGV[1]
if redis.call('GET', worker) == node then redis.call('DEL', worker) end
return unannounced('module_released')
