-- Remove a smart module without deliveries that was noted more than `ttl_ms` ago.
local waiting = KEYS[1]
local name, ttl_ms = unpack(ARGV, 1, 2)
--- @include "store/clock"
local noted = redis.call('ZSCORE', waiting, name)
if noted and tonumber(noted) <= now - ttl_ms then return redis.call('ZREM', waiting, name) end
return 0
