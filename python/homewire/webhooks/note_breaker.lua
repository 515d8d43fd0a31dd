-- Store until when the circuit breaker of a smart module is open; '0': it is closed.
local module = KEYS[3]
local since, until_ms = unpack(ARGV, 1, 2)
if redis.call('HGET', module, 'since') ~= since then return {'gone'} end
if until_ms == '0' then
  redis.call('HDEL', module, 'broken_until')
else
  redis.call('HSET', module, 'broken_until', until_ms)
end
return unannounced('breaker_noted')
