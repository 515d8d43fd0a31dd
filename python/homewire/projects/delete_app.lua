-- Delete an app.
local apps = KEYS[3]
local id = ARGV[1]
if redis.call('HDEL', apps, id) == 0 then return {'unknown', 'app'} end
release('0', COST.app, 1)
return unannounced('app_deleted')
