-- Store a new smart module. KEYS from 5 on: the homes that it is for; none: all homes. ARGV from 3 on: name and
-- value of each field.
local module, modules = unpack(KEYS, 3, 4)
local id, max_modules = unpack(ARGV, 1, 2)
--- @include "store/clock"
if redis.call('EXISTS', module) == 1 then return {'taken', 'smart_module'} end
if redis.call('ZCARD', modules) >= tonumber(max_modules) then return {'taken', 'module_place'} end
for i = 5, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {'unknown', 'home'} end
end
local bytes = COST.module
for i = 3, #ARGV do bytes = bytes + #ARGV[i] end
local over = charge('0', bytes, 1)
if over then return over end
redis.call('HSET', module, 'since', now, 'charged', bytes, unpack(ARGV, 3))
redis.call('ZADD', modules, 0, id)
return unannounced('smart_module_created')
