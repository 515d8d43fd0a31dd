-- Store a provisioning token that a member of the home asked for.
local home, members, token = unpack(KEYS, 3, 5)
local home_id, user_id, class, tag, expires = unpack(ARGV, 1, 5)
if redis.call('EXISTS', home) == 0 or redis.call('HEXISTS', members, user_id) == 0 then
  return {'unknown', 'home'}
end
local charged = charge_name(token, 'u' .. user_id, COST.provisioning_token, 1)
local over = over_quota('u' .. user_id, COST.provisioning_token, 1)
if over then return over end
book_until(expires, charged)
redis.call('HSET', token, 'home', home_id, 'user', user_id, 'class', class, 'tag', tag, 'expires', expires)
redis.call('PEXPIREAT', token, expires)
return unannounced('provisioning_begun')
