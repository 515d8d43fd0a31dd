-- Store a new device with its key and claim code. KEYS 8 and 9 are there only for a device with a home.
local device, devices, places, claim_codes, key, home, home_devices = unpack(KEYS, 3, 9)
local id, created, class, name, tag, key_hash, claim_code, home_id = unpack(ARGV, 1, 8)
if home_id ~= '0' and redis.call('EXISTS', home) == 0 then return {'unknown', 'home'} end
if redis.call('HEXISTS', claim_codes, claim_code) == 1 then return {'taken', 'claim_code'} end
local over = charge(owner_of(home_id), COST.device, 1)
if over then return over end
redis.call('HSET', claim_codes, claim_code, id)
redis.call('HSET', device, 'created', created, 'class', class, 'name', name, 'tag', tag,
  'key', key_hash, 'claim_code', claim_code, 'home', home_id)
redis.call('ZADD', devices, id, id)
redis.call('HSET', places, id, home_id .. ' ' .. class)
redis.call('HSET', key, 'kind', 'device', 'id', id, 'name', class, 'permissions', '')
if home_id ~= '0' then redis.call('ZADD', home_devices, id, id) end
return unannounced('device_created')
