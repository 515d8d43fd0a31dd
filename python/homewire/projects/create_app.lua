-- Register an app.
local apps = KEYS[3]
local id, created = ARGV[1], ARGV[2]
if redis.call('HEXISTS', apps, id) == 1 then return {'taken', 'app'} end
local over = charge('0', COST.app, 1)
if over then return over end
redis.call('HSET', apps, id, created)
return unannounced('app_created')
