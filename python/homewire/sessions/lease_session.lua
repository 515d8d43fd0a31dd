-- Keep a session from being ended for LEASE_MS, by the clock of Redis: the node that ends it may have another one.
local session, leases = KEYS[3], KEYS[4]
local lease_id, node_time = ARGV[1], ARGV[2]
local stored = redis.call('HMGET', session, 'closed', 'expires')
if stored[1] ~= '0' or tonumber(stored[2]) <= tonumber(node_time) then return {'unknown', 'session'} end
--- @include "store/clock"
redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
redis.call('ZADD', leases, now + LEASE_MS, lease_id)
redis.call('PEXPIRE', leases, LEASE_MS)
return unannounced('session_leased')
