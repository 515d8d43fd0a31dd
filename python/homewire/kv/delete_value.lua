-- Delete a value of a home or device, and publish the event in the home that it belongs to.
-- `owner_kind` is 'home' or 'device', `home_id` the home of the device or 0.
local owner, values, value_keys, home = unpack(KEYS, 3, 6)
local owner_kind, key, home_id, event = unpack(ARGV, 1, 4)
if redis.call('EXISTS', owner) == 0 then return {'unknown', owner_kind} end
if owner_kind == 'device' and redis.call('HGET', owner, 'home') ~= home_id then return {'moved'} end
if ACTIVE['write_' .. owner_kind] and is_deactivated(home) then return {'deactivated'} end
local bytes = redis.call('HSTRLEN', values, key)
if bytes == 0 then return {'unknown', 'key'} end
release(owner_of(home_id), bytes + COST.value, 1)
redis.call('HDEL', values, key)
redis.call('ZREM', value_keys, key)
if redis.call('EXISTS', value_keys) == 1 then
  redis.call('HINCRBY', values, '_bytes', -bytes)
else
  redis.call('UNLINK', values)
end
if redis.call('EXISTS', home) == 1 then publish_event(home_id, event) end
return unannounced('value_deleted')
