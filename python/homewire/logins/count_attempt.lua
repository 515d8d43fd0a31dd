-- Count an attempt in its limits, and end its leases. KEYS: counter and leases of each limit. ARGV from 2 on: window
-- (ms) of each limit, and 1 if each attempt begins it anew.
local attempt_id = ARGV[1]
--- @include "store/clock"
for i = 3, #KEYS, 2 do
  redis.call('ZREM', KEYS[i + 1], attempt_id)
  redis.call('HSET', KEYS[i], 'last', now)
  if redis.call('HINCRBY', KEYS[i], 'n', 1) == 1 or ARGV[i] == '1' then
    redis.call('PEXPIRE', KEYS[i], ARGV[i - 1])
  end
end
return unannounced('attempt_counted')
