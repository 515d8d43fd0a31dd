-- Deactivate ('1') or activate ('0') a home. ARGV from 3 on: field and value of other changes.
local home = KEYS[3]
local home_id, deactivated = unpack(ARGV, 1, 2)
if redis.call('EXISTS', home) == 0 then return {'unknown', 'home'} end
if #ARGV > 2 then redis.call('HSET', home, unpack(ARGV, 3)) end
if (redis.call('HGET', home, 'deactivated') or '0') == deactivated then return unannounced('home_as_it_was') end
if deactivated == '1' then
  redis.call('HSET', home, 'deactivated', '1')
  return announce('home_deactivated', {home = home_id})
end
redis.call('HDEL', home, 'deactivated')
return announce('home_activated', {home = home_id})
