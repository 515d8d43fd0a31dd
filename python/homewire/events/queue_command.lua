-- Queue a command of a device, and publish it. `idempotency`, `fingerprint` and `idempotency_ms` are there only for
-- a request with an Idempotency-Key. `head` and `tail` are the envelope before and after the sequence number.
local device, presence, commands, ends, idempotency = unpack(KEYS, 3, 7)
local device_id, now, expires, max_commands, max_bytes = unpack(ARGV, 1, 5)
local head, tail, fingerprint, idempotency_ms = unpack(ARGV, 6, 9)
--- @include "events/removing_command"
if redis.call('EXISTS', device) == 0 then return {'unknown', 'device'} end
if idempotency then
  local before = redis.call('GET', idempotency)
  if before == fingerprint then return {'ok'} end
  if before then return {'reused'} end
end
local charged = commands_charge(commands, ends)
local expired = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100)
for _, sequence in ipairs(expired) do remove_command(commands, ends, sequence) end
if #expired > 0 and release_early(charged) then
  -- The keys keep their end, also if the command that ended last was delivered before.
  charged = commands_charge(commands, ends)
  book_until(redis.call('PEXPIRETIME', commands), charged)
end
local bytes = #head + #tail + 9
if redis.call('ZCARD', ends) >= tonumber(max_commands) then return {'full', 'commands'} end
if tonumber(redis.call('HGET', commands, 'bytes') or 0) + bytes > tonumber(max_bytes) then
  return {'full', 'bytes'}
end
local over = over_quota('0', bytes + COST.command, 1)
if over then return over end
-- The counter is in the record that stays: a device never gets one sequence number for two commands.
local sequence = redis.call('HINCRBY', presence, 'tickets', 1)
local envelope = head .. cmsgpack.pack(sequence) .. tail
redis.call('HSET', commands, sequence, envelope)
redis.call('HINCRBY', commands, 'bytes', #envelope)
redis.call('ZADD', ends, expires, sequence)
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', commands, last)
redis.call('PEXPIREAT', ends, last)
release_early(charged)
book_until(last, commands_charge(commands, ends))
if idempotency then redis.call('SET', idempotency, fingerprint, 'PX', idempotency_ms) end
-- The node with the device's socket delivers it in order with all other commands.
publish_event(device_id, envelope)
return unannounced('command_queued')
