-- Take a device out of its home. KEYS from `at` on: the device, and what it has only in its home, together
-- `stride` keys. The device becomes what it was before it was claimed: its key, claim code, class and tag stay.
-- Answers bytes and number of the values that it had.
local function leave(at, stride, places, id, class)
  local device, values, value_keys, commands, command_ends = unpack(KEYS, at, at + 4)
  redis.call('HSET', device, 'home', '0', 'name', '')
  redis.call('HDEL', device, 'claimed', 'claimable_until')
  redis.call('HSET', places, id, '0 ' .. class)
  local bytes, records = values_stored(values, value_keys)
  release_early(commands_charge(commands, command_ends))
  redis.call('UNLINK', unpack(KEYS, at + 1, at + stride - 1))
  return bytes, records
end
