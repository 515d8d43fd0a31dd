"""Scripts of devices. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

CREATE_DEVICE: Final = changing("""
-- KEYS: …, device, devices, places, claim codes, key, [home, devices of the home]
-- ARGV: id, created, class, name, tag, hash, claim code, home id or 0
local id = ARGV[1]
if ARGV[8] ~= '0' and redis.call('EXISTS', KEYS[8]) == 0 then return {'unknown', 'home'} end
if redis.call('HSETNX', KEYS[6], ARGV[7], id) == 0 then return {'taken', 'claim_code'} end
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'class', ARGV[3], 'name', ARGV[4], 'tag', ARGV[5],
  'key', ARGV[6], 'claim_code', ARGV[7], 'home', ARGV[8])
redis.call('ZADD', KEYS[4], id, id)
redis.call('HSET', KEYS[5], id, ARGV[8] .. ' ' .. ARGV[3])
redis.call('HSET', KEYS[7], 'kind', 'device', 'id', id, 'name', ARGV[3], 'permissions', '')
if ARGV[8] ~= '0' then redis.call('ZADD', KEYS[9], id, id) end
return unheard('device_created')
""")

DELETE_DEVICE: Final = removing("""
-- KEYS: …, device, devices, places, claim codes, key, [devices of the home]
-- ARGV: id, hash, claim code, home id
local device = redis.call('HMGET', KEYS[3], 'key', 'home')
if device[1] ~= ARGV[2] or device[2] ~= ARGV[4] then return {'moved'} end
redis.call('UNLINK', KEYS[3], KEYS[7])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[3])
if ARGV[4] ~= '0' then redis.call('ZREM', KEYS[8], ARGV[1]) end
return changed('device_deleted', {device = ARGV[1], home = ARGV[4]})
""")

MOVE_DEVICE: Final = changing("""
-- KEYS: …, device, places, new home, its devices, devices of the old home
-- ARGV: id, old home id or 0, new home id or 0
local id, old, new = ARGV[1], ARGV[2], ARGV[3]
local device = redis.call('HMGET', KEYS[3], 'home', 'class')
if device[1] ~= old then return {'moved'} end
if new ~= '0' and redis.call('EXISTS', KEYS[5]) == 0 then return {'unknown', 'home'} end
if old == new then return {'ok'} end
if old ~= '0' then redis.call('ZREM', KEYS[7], id) end
if new ~= '0' then redis.call('ZADD', KEYS[6], id, id) end
redis.call('HSET', KEYS[3], 'home', new)
redis.call('HSET', KEYS[4], id, new .. ' ' .. device[2])
return changed('device_moved', {device = id, home = new, body = old})
""")
