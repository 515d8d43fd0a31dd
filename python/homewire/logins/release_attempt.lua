-- End the leases of an attempt that does not count. KEYS: leases of each limit.
local attempt_id = ARGV[1]
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], attempt_id) end
return unannounced('attempt_released')
