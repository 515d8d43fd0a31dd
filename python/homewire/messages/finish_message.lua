-- Remove a message that was sent.
local queue = KEYS[1]
local group, entry = unpack(ARGV, 1, 2)
redis.call('XACK', queue, group, entry)
return redis.call('XDEL', queue, entry)
