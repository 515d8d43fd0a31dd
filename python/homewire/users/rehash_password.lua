-- Replace the hash of a password by another hash of the same one.
local user = KEYS[3]
local old_hash, new_hash = ARGV[1], ARGV[2]
if redis.call('HGET', user, 'password') ~= old_hash then return {'moved'} end
redis.call('HSET', user, 'password', new_hash)
return unannounced('password_rehashed')
