-- Delete devices of one home. KEYS from 7 on: of each device the device, its sessions, its key, and what it has
-- only in its home, together `stride` keys. ARGV from 3 on: id, key hash and claim code of each.
local home_devices, devices, places, claim_codes = unpack(KEYS, 3, 6)
local home_id, stride = ARGV[1], tonumber(ARGV[2])
local count = (#ARGV - 2) / 3
for i = 0, count - 1 do
  local device, sessions = unpack(KEYS, 7 + i * stride, 8 + i * stride)
  local key_hash, old_home_id = unpack(redis.call('HMGET', device, 'key', 'home'))
  if key_hash ~= ARGV[4 + 3 * i] or old_home_id ~= home_id then return {'moved'} end
  -- The caller ends the sessions first, one by one.
  if redis.call('EXISTS', sessions) == 1 then return {'in_session'} end
end
local bytes, records = count * COST.device, count
for i = 0, count - 1 do
  local id, claim_code = ARGV[3 + 3 * i], ARGV[5 + 3 * i]
  local first, last = 7 + i * stride, 6 + (i + 1) * stride
  local values, value_keys, commands, command_ends = unpack(KEYS, first + 3, first + 6)
  local freed, count_of_values = values_stored(values, value_keys)
  bytes, records = bytes + freed, records + count_of_values
  release_early(commands_charge(commands, command_ends))
  redis.call('UNLINK', unpack(KEYS, first, last))
  redis.call('ZREM', home_devices, id)
  redis.call('ZREM', devices, id)
  redis.call('HDEL', places, id)
  redis.call('HDEL', claim_codes, claim_code)
  announce('device_deleted', {device = id, home = home_id})
end
release(owner_of(home_id), bytes, records)
return unannounced('devices_deleted')
