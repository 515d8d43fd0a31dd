-- Make a delivery a dead letter.
local module, deliveries, tries, dead_letters = unpack(KEYS, 3, 6)
local entry, reason, number_of_tries, max_dead_letters = unpack(ARGV, 1, 4)
--- @include "webhooks/size"
--- @include "webhooks/removing"
local fields = remove(module, deliveries, tries, entry)
if not fields then return {'gone'} end
redis.call('XADD', dead_letters, 'MAXLEN', max_dead_letters, '*', 'r', reason, 't', number_of_tries,
  unpack(fields))
return unannounced('dead_lettered')
