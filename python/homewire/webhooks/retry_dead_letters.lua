-- Make dead letters deliveries again. ARGV: their ids. An entry with other fields than reason, tries, event id and
-- envelope is no dead letter and stays.
local module, deliveries, dead_letters = unpack(KEYS, 3, 5)
--- @include "webhooks/size"
if redis.call('EXISTS', module) == 0 then return {'unknown', 'smart_module'} end
local moved = 0
for i = 1, #ARGV do
  local found = redis.call('XRANGE', dead_letters, ARGV[i], ARGV[i])
  if found[1] and #found[1][2] == 8 then
    local fields = found[1][2]
    redis.call('XADD', deliveries, '*', unpack(fields, 5))
    redis.call('XDEL', dead_letters, ARGV[i])
    redis.call('HINCRBY', module, 'bytes', size_of(fields))
    moved = moved + 1
  end
end
return unannounced('dead_letters_retried', tostring(moved))
