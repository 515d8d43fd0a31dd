-- Store the device of a provisioning token, which is spent.
local token, home, members, device, devices, places, key, home_devices, issuer = unpack(KEYS, 3, 11)
local id, now, key_hash, home_id, caller_id = unpack(ARGV, 1, 5)
local token_home, issuer_id, class, tag, expires =
  unpack(redis.call('HMGET', token, 'home', 'user', 'class', 'tag', 'expires'))
if state ~= 'live' or token_home ~= home_id or tonumber(expires) <= tonumber(now) then
  return {'invalid_token'}
end
-- A token is valid as long as the membership of the user who asked for it.
if redis.call('EXISTS', home) == 0 or redis.call('HEXISTS', members, issuer_id) == 0
  or redis.call('EXISTS', issuer) == 0 then
  return {'invalid_token'}
end
if caller_id ~= '' and redis.call('HEXISTS', members, caller_id) == 0 then return {'unknown', 'home'} end
local over = charge('h' .. home_id, COST.device, 1)
if over then return over end
release_early(charge_name(token, 'u' .. issuer_id, COST.provisioning_token, 1))
redis.call('UNLINK', token)
redis.call('HSET', device, 'created', now, 'class', class, 'name', '', 'tag', tag,
  'key', key_hash, 'claim_code', '', 'home', home_id)
redis.call('ZADD', devices, id, id)
redis.call('HSET', places, id, home_id .. ' ' .. class)
redis.call('HSET', key, 'kind', 'device', 'id', id, 'name', class, 'permissions', '')
redis.call('ZADD', home_devices, id, id)
return unannounced('device_provisioned')
