-- Behind the keys and arguments of the script itself: `Database.change` adds them.
local expiring, usage = table.remove(KEYS), table.remove(KEYS)
local most = {}
for limit in string.gmatch(table.remove(ARGV), '%d+') do most[#most + 1] = tonumber(limit) end
local function add(field, bytes, records)
  local left = redis.call('HINCRBY', usage, field .. ':bytes', bytes)
  if redis.call('HINCRBY', usage, field .. ':records', records) == 0 and left == 0 then
    redis.call('HDEL', usage, field .. ':bytes', field .. ':records')
  end
end
local function payer_of(owner)
  return string.sub(owner, 1, 1) == 'h' and redis.call('HGET', usage, owner .. ':payer')
end
-- The owner that the content of a home is counted for; '0' for what is in no home.
local function owner_of(home_id) return home_id == '0' and '0' or 'h' .. home_id end
-- Count what is stored for an owner, whatever the quotas say; or what is not any more, below zero.
local function book(owner, bytes, records)
  if bytes == 0 and records == 0 then return end
  local payer = payer_of(owner)
  add('project', bytes, records)
  add(owner, bytes, records)
  if payer then add(payer, bytes, records) end
end
local function release(owner, bytes, records) book(owner, 0 - bytes, 0 - records) end
-- A charge ends before its time. Whether it was there.
local function release_early(charge)
  if not charge or redis.call('ZREM', expiring, charge) == 0 then return false end
  local owner, bytes, records = string.match(charge, '^%S+ (%S+) (%d+) (%d+)$')
  release(owner, tonumber(bytes), tonumber(records))
  return true
end
-- Charges of one owner end before their time: those that ARGV has from `first` on.
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
-- The answer that so much more would be too much for an owner; nothing if there is room.
local function over_quota(owner, bytes, records)
  forget_expired(FORGOTTEN_AT_ONCE)
  local limited = payer_of(owner) or owner
  local used = redis.call('HMGET', usage, 'project:bytes', 'project:records',
    limited .. ':bytes', limited .. ':records')
  local names = {'project_bytes', 'project_records', 'user_bytes', 'user_records'}
  local growth = {bytes, records, bytes, records}
  for i = 1, owner == '0' and 2 or 4 do
    if most[i] > 0 and growth[i] > 0 and tonumber(used[i] or 0) + growth[i] > most[i] then
      return {'quota', names[i]}
    end
  end
end
-- Count what is about to be stored; or the answer that it would be too much, and nothing is counted.
local function charge(owner, bytes, records)
  local refusal = over_quota(owner, bytes, records)
  if not refusal then book(owner, bytes, records) end
  return refusal
end
-- Count for another owner what is stored already; or the answer that it would be too much there.
local function charge_instead(from, to, bytes, records)
  release(from, bytes, records)
  local refusal = charge(to, bytes, records)
  if refusal then book(from, bytes, records) end
  return refusal
end
-- The name of a charge that ends by itself: the key that it is for, owner, bytes and records.
local function charge_name(key, owner, bytes, records)
  return string.format('%s %s %d %d', string.match(key, '}:(.*)$'), owner, bytes, records)
end
-- The same as `book`, until some moment in ms. A charge of this name that is there is only prolonged.
local function book_until(ends, name)
  if redis.call('ZADD', expiring, ends, name) == 0 then return end
  local owner, bytes, records = string.match(name, '^%S+ (%S+) (%d+) (%d+)$')
  book(owner, tonumber(bytes), tonumber(records))
end
-- What a charge is for lives longer now.
local function prolong(ends, name)
  if name then redis.call('ZADD', expiring, 'XX', ends, name) end
end
-- From now on a home's content counts for a user; or, with the user who paid, for the home alone.
local function pay(home, user) redis.call('HSET', usage, 'h' .. home .. ':payer', 'u' .. user) end
local function stop_paying(home, user)
  local owner = 'h' .. home
  if payer_of(owner) ~= 'u' .. user then return end
  local used = redis.call('HMGET', usage, owner .. ':bytes', owner .. ':records')
  add('u' .. user, 0 - (used[1] or 0), 0 - (used[2] or 0))
  redis.call('HDEL', usage, owner .. ':payer')
end
-- Nothing of a home is left.
local function settle(home)
  local owner = 'h' .. home
  local used = redis.call('HMGET', usage, owner .. ':bytes', owner .. ':records')
  release(owner, used[1] or 0, used[2] or 0)
  redis.call('HDEL', usage, owner .. ':payer')
end
-- What the values of a home or device count: bytes and records.
local function values_stored(values, keys)
  local records = redis.call('ZCARD', keys)
  return tonumber(redis.call('HGET', values, '_bytes') or 0) + records * COST.value, records
end
-- The charge of the commands that wait for a device.
local function commands_charge(commands, ends)
  local records = redis.call('ZCARD', ends)
  local bytes = tonumber(redis.call('HGET', commands, 'bytes') or 0)
  return charge_name(commands, '0', bytes + records * COST.command, records)
end
