-- Count a failed try of a delivery, and store the error in its module.
local deliveries, tries, module = unpack(KEYS, 3, 5)
local entry, since, problem, now = unpack(ARGV, 1, 4)
if #redis.call('XRANGE', deliveries, entry, entry) == 0 then return {'gone'} end
if redis.call('HGET', module, 'since') == since then
  redis.call('HSET', module, 'last_error', problem, 'last_error_at', now)
end
return unannounced('try_counted', tostring(redis.call('HINCRBY', tries, entry, 1)))
