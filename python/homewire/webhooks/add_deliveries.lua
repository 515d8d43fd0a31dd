-- Add deliveries to a smart module, as far as they fit into `max_bytes`. The others become dead letters at once.
-- ARGV from 4 on: event id and envelope of each. A module with the same id that was created later gets nothing.
local module, deliveries, dead_letters = unpack(KEYS, 3, 5)
local since, max_bytes, max_dead_letters = unpack(ARGV, 1, 3)
--- @include "webhooks/size"
if redis.call('HGET', module, 'since') ~= since then return {'unknown', 'smart_module'} end
local bytes = tonumber(redis.call('HGET', module, 'bytes') or '0')
local refused = 0
for i = 4, #ARGV, 2 do
  local event_id, envelope = ARGV[i], ARGV[i + 1]
  local size = size_of({envelope})
  if bytes + size <= tonumber(max_bytes) then
    redis.call('XADD', deliveries, '*', 'i', event_id, 'e', envelope)
    bytes = bytes + size
  else
    redis.call('XADD', dead_letters, 'MAXLEN', max_dead_letters, '*', 'r', 'too much waits', 't', 0,
      'i', event_id, 'e', envelope)
    refused = refused + 1
  end
end
redis.call('HSET', module, 'bytes', bytes)
return unannounced('deliveries_added', tostring(refused))
