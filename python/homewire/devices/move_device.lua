-- Move a device to another home, or out of its home. KEYS from 8 on: what it has only in its home
-- (`ProjectSlot.device_belongings`).
local device, places, new_home, new_devices, old_devices = unpack(KEYS, 3, 7)
local values, value_keys, commands, command_ends = unpack(KEYS, 8, 11)
local id, old_id, new_id = unpack(ARGV, 1, 3)
local home_id, class = unpack(redis.call('HMGET', device, 'home', 'class'))
if home_id ~= old_id then return {'moved'} end
if new_id ~= '0' and redis.call('EXISTS', new_home) == 0 then return {'unknown', 'home'} end
if old_id == new_id then return {'ok'} end
local bytes, records = values_stored(values, value_keys)
if old_id == '0' then
  local over = charge_instead('0', 'h' .. new_id, bytes + COST.device, records + 1)
  if over then return over end
else
  local over = charge_instead('h' .. old_id, owner_of(new_id), COST.device, 1)
  if over then return over end
  release('h' .. old_id, bytes, records)
  release_early(commands_charge(commands, command_ends))
end
if old_id ~= '0' then
  -- Members of the new home must not read what members of the old one named and stored.
  redis.call('ZREM', old_devices, id)
  redis.call('HSET', device, 'name', '')
  redis.call('UNLINK', values, value_keys, commands, command_ends)
end
if new_id ~= '0' then redis.call('ZADD', new_devices, id, id) end
redis.call('HSET', device, 'home', new_id)
redis.call('HDEL', device, 'claimed', 'claimable_until')
redis.call('HSET', places, id, new_id .. ' ' .. class)
return announce('device_moved', {device = id, home = new_id, body = old_id})
