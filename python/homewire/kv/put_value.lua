-- Store a value of a home or device, and publish the event in the home that it belongs to.
-- `owner_kind` is 'home' or 'device', `home_id` the home of the device or 0.
local owner, values, value_keys, home = unpack(KEYS, 3, 6)
local owner_kind, key, value, max_values, max_bytes, home_id, event = unpack(ARGV, 1, 7)
if redis.call('EXISTS', owner) == 0 then return {'unknown', owner_kind} end
if owner_kind == 'device' and redis.call('HGET', owner, 'home') ~= home_id then return {'moved'} end
if ACTIVE['write_' .. owner_kind] and is_deactivated(home) then return {'deactivated'} end
local old_bytes = redis.call('HSTRLEN', values, key)
local growth = #value - old_bytes
local bytes = tonumber(redis.call('HGET', values, '_bytes') or 0) + growth
if old_bytes == 0 and redis.call('ZCARD', value_keys) >= tonumber(max_values) then
  return {'full', 'values'}
end
-- A smaller value is always accepted.
if growth > 0 and bytes > tonumber(max_bytes) then return {'full', 'bytes'} end
local is_new = old_bytes == 0 and 1 or 0
local over = charge(owner_of(home_id), growth + is_new * COST.value, is_new)
if over then return over end
redis.call('HSET', values, key, value, '_bytes', bytes)
redis.call('ZADD', value_keys, 0, key)
if redis.call('EXISTS', home) == 1 then publish_event(home_id, event) end
return unannounced('value_saved')
