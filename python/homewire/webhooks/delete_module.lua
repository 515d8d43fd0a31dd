-- Delete a smart module. KEYS from 5 on: its streams and counters. UNLINK frees them outside of the script.
local modules, module = unpack(KEYS, 3, 4)
local id = ARGV[1]
if redis.call('ZREM', modules, id) == 0 then return {'unknown', 'smart_module'} end
release('0', redis.call('HGET', module, 'charged') or 0, 1)
redis.call('UNLINK', unpack(KEYS, 4))
return unannounced('smart_module_deleted')
