-- `Database.change` adds these after the keys and arguments of the script.
local expiring, usage = table.remove(KEYS), table.remove(KEYS)
local quotas = {}
for limit in string.gmatch(table.remove(ARGV), '%d+') do quotas[#quotas + 1] = tonumber(limit) end
local function add(field, bytes, records)
  local left = redis.call('HINCRBY', usage, field .. ':bytes', bytes)
  if redis.call('HINCRBY', usage, field .. ':records', records) == 0 and left == 0 then
    redis.call('HDEL', usage, field .. ':bytes', field .. ':records')
  end
end
local function payer_of(owner)
  return string.sub(owner, 1, 1) == 'h' and redis.call('HGET', usage, owner .. ':payer')
end
-- The owner of the records of a home; '0' for records in no home.
local function owner_of(home_id) return home_id == '0' and '0' or 'h' .. home_id end
-- Count stored records for an owner without checking quotas; negative numbers for deleted ones.
local function book(owner, bytes, records)
  if bytes == 0 and records == 0 then return end
  local payer = payer_of(owner)
  add('project', bytes, records)
  add(owner, bytes, records)
  if payer then add(payer, bytes, records) end
end
local function release(owner, bytes, records) book(owner, 0 - bytes, 0 - records) end
-- Release a charge before its end. Whether it existed.
local function release_early(charge)
  if not charge or redis.call('ZREM', expiring, charge) == 0 then return false end
  local owner, bytes, records = string.match(charge, '^%S+ (%S+) (%d+) (%d+)$')
  release(owner, tonumber(bytes), tonumber(records))
  return true
end
-- Release charges of one owner before their end: those in ARGV from `first` on.
local function release_together(owner, first)
  local bytes, records = 0, 0
  for i = first, #ARGV do
    if redis.call('ZREM', expiring, ARGV[i]) == 1 then
      local freed, count = string.match(ARGV[i], ' (%d+) (%d+)$')
      bytes, records = bytes + freed, records + count
    end
  end
  release(owner, bytes, records)
end
local function forget_expired(count)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local over = redis.call('ZRANGEBYSCORE', expiring, '-inf', now, 'LIMIT', 0, count)
  for _, charge in ipairs(over) do release_early(charge) end
  return #over
end
-- The refusal if this growth exceeds a quota of the owner; nil if not.
local function over_quota(owner, bytes, records)
  forget_expired(MAX_RELEASED)
  local limited = payer_of(owner) or owner
  local used = redis.call('HMGET', usage, 'project:bytes', 'project:records',
    limited .. ':bytes', limited .. ':records')
  local names = {'project_bytes', 'project_records', 'user_bytes', 'user_records'}
  local growth = {bytes, records, bytes, records}
  for i = 1, owner == '0' and 2 or 4 do
    if quotas[i] > 0 and growth[i] > 0 and tonumber(used[i] or 0) + growth[i] > quotas[i] then
      return {'quota', names[i]}
    end
  end
end
-- Count records that are about to be stored. The refusal, with nothing counted, if they exceed a quota.
local function charge(owner, bytes, records)
  local refusal = over_quota(owner, bytes, records)
  if not refusal then book(owner, bytes, records) end
  return refusal
end
-- Count stored records for another owner. The refusal, with nothing changed, if they exceed its quota.
local function charge_instead(from, to, bytes, records)
  release(from, bytes, records)
  local refusal = charge(to, bytes, records)
  if refusal then book(from, bytes, records) end
  return refusal
end
-- The name of a charge with an end: its key, owner, bytes and records.
local function charge_name(key, owner, bytes, records)
  return string.format('%s %s %d %d', string.match(key, '}:(.*)$'), owner, bytes, records)
end
-- Like `book`, until a time in ms. An existing charge of this name is only prolonged.
local function book_until(ends, name)
  if redis.call('ZADD', expiring, ends, name) == 0 then return end
  local owner, bytes, records = string.match(name, '^%S+ (%S+) (%d+) (%d+)$')
  book(owner, tonumber(bytes), tonumber(records))
end
-- Move the end of a charge.
local function prolong(ends, name)
  if name then redis.call('ZADD', expiring, 'XX', ends, name) end
end
-- Set the payer of a home before its first record, or remove the payer.
local function pay(home, user) redis.call('HSET', usage, 'h' .. home .. ':payer', 'u' .. user) end
local function stop_paying(home, user)
  local owner = 'h' .. home
  if payer_of(owner) ~= 'u' .. user then return end
  local used = redis.call('HMGET', usage, owner .. ':bytes', owner .. ':records')
  add('u' .. user, 0 - (used[1] or 0), 0 - (used[2] or 0))
  redis.call('HDEL', usage, owner .. ':payer')
end
-- Release all that a home counts.
local function settle(home)
  local owner = 'h' .. home
  local used = redis.call('HMGET', usage, owner .. ':bytes', owner .. ':records')
  release(owner, used[1] or 0, used[2] or 0)
  redis.call('HDEL', usage, owner .. ':payer')
end
-- Bytes and number of the values of a home or device, as they are counted.
local function values_stored(values, keys)
  local records = redis.call('ZCARD', keys)
  return tonumber(redis.call('HGET', values, '_bytes') or 0) + records * COST.value, records
end
-- The charge of the queued commands of a device.
local function commands_charge(commands, ends)
  local records = redis.call('ZCARD', ends)
  local bytes = tonumber(redis.call('HGET', commands, 'bytes') or 0)
  return charge_name(commands, '0', bytes + records * COST.command, records)
end
