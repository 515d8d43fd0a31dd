-- Put the device of a claim code into the home of the user who claims it. The caller found the device by the
-- code before.
local device, places, claim_codes, home, members, home_devices, values, value_keys = unpack(KEYS, 3, 10)
local id, claim_code, home_id, user_id, now = unpack(ARGV, 1, 5)
if redis.call('EXISTS', home) == 0 or redis.call('HEXISTS', members, user_id) == 0 then
  return {'unknown', 'home'}
end
if redis.call('HGET', claim_codes, claim_code) ~= id then return {'not_claimable'} end
local old_home_id, class, claimable_until =
  unpack(redis.call('HMGET', device, 'home', 'class', 'claimable_until'))
if old_home_id ~= '0' then return {'in_home', old_home_id} end
if tonumber(claimable_until or 0) <= tonumber(now) then return {'not_claimable'} end
-- A device brings along the values that it stored while it was in no home.
local bytes, records = values_stored(values, value_keys)
local over = charge_instead('0', 'h' .. home_id, bytes + COST.device, records + 1)
if over then return over end
redis.call('HSET', device, 'home', home_id, 'claimed', now)
redis.call('HDEL', device, 'claimable_until')
redis.call('HSET', places, id, home_id .. ' ' .. class)
redis.call('ZADD', home_devices, id, id)
return announce('device_moved', {device = id, home = home_id, body = '0'})
