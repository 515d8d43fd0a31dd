-- Remove the last of a deleted home, its values, and its charges. However many values there are: another thread
-- of Redis frees them.
local values, value_keys, deleted_homes = unpack(KEYS, 3, 5)
local home_id = ARGV[1]
redis.call('UNLINK', values, value_keys)
settle(home_id)
redis.call('ZREM', deleted_homes, home_id)
return unannounced('home_settled')
