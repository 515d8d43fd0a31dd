-- Note when a login as this user or device failed.
local holder = KEYS[3]
local now = ARGV[1]
if redis.call('HEXISTS', holder, 'created') == 0 then return {'unknown', 'user'} end
redis.call('HSET', holder, 'last_failed_login', now)
return unannounced('login_failed')
