-- Replace the sealed key of a smart module. The old key signs too until `until_ms`; '0': not any more.
local module = KEYS[3]
local new_key, until_ms = unpack(ARGV, 1, 2)
local old_key = redis.call('HGET', module, 'key')
if not old_key then return {'unknown', 'smart_module'} end
redis.call('HSET', module, 'key', new_key)
if until_ms == '0' then
  redis.call('HDEL', module, 'old_key', 'old_key_until')
else
  redis.call('HSET', module, 'old_key', old_key, 'old_key_until', until_ms)
end
return unannounced('smart_module_key_rotated')
