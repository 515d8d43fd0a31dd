"""Scripts of devices. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.access_changes.records import RecordType
from homewire.store.script import changing, removing

_OWNER: Final = """
-- What a device counts for: its home, or the project alone.
local function owner_of(home) return home == '0' and '0' or 'h' .. home end
"""

CREATE_DEVICE: Final = changing(
    _OWNER
    + """
-- KEYS: …, device, devices, places, claim codes, key, [home, devices of the home]
-- ARGV: id, created, class, name, tag, hash, claim code, home id or 0
local id = ARGV[1]
if ARGV[8] ~= '0' and redis.call('EXISTS', KEYS[8]) == 0 then return {'unknown', 'home'} end
if redis.call('HEXISTS', KEYS[6], ARGV[7]) == 1 then return {'taken', 'claim_code'} end
local over = charge(owner_of(ARGV[8]), COST.device, 1)
if over then return over end
redis.call('HSET', KEYS[6], ARGV[7], id)
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'class', ARGV[3], 'name', ARGV[4], 'tag', ARGV[5],
  'key', ARGV[6], 'claim_code', ARGV[7], 'home', ARGV[8])
redis.call('ZADD', KEYS[4], id, id)
redis.call('HSET', KEYS[5], id, ARGV[8] .. ' ' .. ARGV[3])
redis.call('HSET', KEYS[7], 'kind', 'device', 'id', id, 'name', ARGV[3], 'permissions', '')
if ARGV[8] ~= '0' then redis.call('ZADD', KEYS[9], id, id) end
return unannounced('device_created')
""",
    charges=True,
)

ISSUE_PROVISIONING_TOKEN: Final = changing(
    """
-- KEYS: …, home, members, token. ARGV: home id, user id, class, tag, expires
if redis.call('EXISTS', KEYS[3]) == 0 or redis.call('HEXISTS', KEYS[4], ARGV[2]) == 0 then
  return {'unknown', 'home'}
end
local name = charge_name(KEYS[5], 'u' .. ARGV[2], COST.provisioning_token, 1)
local over = over_quota('u' .. ARGV[2], COST.provisioning_token, 1)
if over then return over end
book_until(ARGV[5], name)
redis.call('HSET', KEYS[5], 'home', ARGV[1], 'user', ARGV[2], 'class', ARGV[3], 'tag', ARGV[4],
  'expires', ARGV[5])
redis.call('PEXPIREAT', KEYS[5], ARGV[5])
return unannounced('provisioning_begun')
""",
    charges=True,
)

PROVISION_DEVICE: Final = changing(
    """
-- KEYS: …, token, home, members, device, devices, places, key, devices of the home, user who asked for it
-- ARGV: id, created (now), hash, home id, id of the user who calls, or nothing
local id = ARGV[1]
local token = redis.call('HMGET', KEYS[3], 'home', 'user', 'class', 'tag', 'expires')
if state ~= 'live' or token[1] ~= ARGV[4] or tonumber(token[5]) <= tonumber(ARGV[2]) then
  return {'invalid_token'}
end
-- It is worth as much as the membership of who asked for it.
if redis.call('EXISTS', KEYS[4]) == 0 or redis.call('HEXISTS', KEYS[5], token[2]) == 0
  or redis.call('EXISTS', KEYS[11]) == 0 then
  return {'invalid_token'}
end
if ARGV[5] ~= '' and redis.call('HEXISTS', KEYS[5], ARGV[5]) == 0 then return {'unknown', 'home'} end
local over = charge('h' .. ARGV[4], COST.device, 1)
if over then return over end
release_early(charge_name(KEYS[3], 'u' .. token[2], COST.provisioning_token, 1))
redis.call('UNLINK', KEYS[3])
redis.call('HSET', KEYS[6], 'created', ARGV[2], 'class', token[3], 'name', '', 'tag', token[4],
  'key', ARGV[3], 'claim_code', '', 'home', ARGV[4])
redis.call('ZADD', KEYS[7], id, id)
redis.call('HSET', KEYS[8], id, ARGV[4] .. ' ' .. token[3])
redis.call('HSET', KEYS[9], 'kind', 'device', 'id', id, 'name', token[3], 'permissions', '')
redis.call('ZADD', KEYS[10], id, id)
return unannounced('device_provisioned')
""",
    charges=True,
)

UPDATE_DEVICE: Final = changing("""
-- KEYS: …, device. ARGV: the home that it was seen in, then fields and values
if redis.call('HGET', KEYS[3], 'home') ~= ARGV[1] then return {'unknown', 'device'} end
redis.call('HSET', KEYS[3], unpack(ARGV, 2))
return unannounced('device_updated')
""")

SET_CLAIMABLE: Final = changing("""
-- KEYS: …, device. ARGV: until when it can be claimed, or 0
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'device'} end
if redis.call('HGET', project, 'on_demand') == '1' then return {'on_demand'} end
redis.call('HSET', KEYS[3], 'claimable_until', ARGV[1])
return unannounced('device_claimable')
""")

CLAIM_DEVICE: Final = changing(
    """
-- KEYS: …, device, places, claim codes, home, members, devices of the home, values of the device, their keys
-- ARGV: device id (found by the code), claim code, home id, user id, now
local id, home = ARGV[1], ARGV[3]
if redis.call('EXISTS', KEYS[6]) == 0 or redis.call('HEXISTS', KEYS[7], ARGV[4]) == 0 then
  return {'unknown', 'home'}
end
if redis.call('HGET', KEYS[5], ARGV[2]) ~= id then return {'not_claimable'} end
local device = redis.call('HMGET', KEYS[3], 'home', 'class', 'claimable_until')
if device[1] ~= '0' then return {'in_home', device[1]} end
if tonumber(device[3] or 0) <= tonumber(ARGV[5]) then return {'not_claimable'} end
-- What a device keeps while it is in no home it takes along.
local bytes, records = values_stored(KEYS[9], KEYS[10])
local over = charge_instead('0', 'h' .. home, bytes + COST.device, records + 1)
if over then return over end
redis.call('HSET', KEYS[3], 'home', home, 'claimed', ARGV[5])
redis.call('HDEL', KEYS[3], 'claimable_until')
redis.call('HSET', KEYS[4], id, home .. ' ' .. device[2])
redis.call('ZADD', KEYS[8], id, id)
return announce('device_moved', {device = id, home = home, body = '0'})
""",
    announces={RecordType.DEVICE_MOVED},
    charges=True,
)

MOVE_DEVICE: Final = changing(
    _OWNER
    + """
-- KEYS: …, device, places, new home, its devices, devices of the old home, what it has in its home
-- ARGV: id, old home id or 0, new home id or 0
local id, old, new = ARGV[1], ARGV[2], ARGV[3]
local device = redis.call('HMGET', KEYS[3], 'home', 'class')
if device[1] ~= old then return {'moved'} end
if new ~= '0' and redis.call('EXISTS', KEYS[5]) == 0 then return {'unknown', 'home'} end
if old == new then return {'ok'} end
local bytes, records = values_stored(KEYS[8], KEYS[9])
if old == '0' then
  local over = charge_instead('0', 'h' .. new, bytes + COST.device, records + 1)
  if over then return over end
else
  local over = charge_instead('h' .. old, owner_of(new), COST.device, 1)
  if over then return over end
  release('h' .. old, bytes, records)
  release_early(commands_charge(KEYS[10], KEYS[11]))
end
if old ~= '0' then
  -- What people of the old home named and stored is not for those of the new one.
  redis.call('ZREM', KEYS[7], id)
  redis.call('HSET', KEYS[3], 'name', '')
  redis.call('UNLINK', unpack(KEYS, 8))
end
if new ~= '0' then redis.call('ZADD', KEYS[6], id, id) end
redis.call('HSET', KEYS[3], 'home', new)
redis.call('HDEL', KEYS[3], 'claimed', 'claimable_until')
redis.call('HSET', KEYS[4], id, new .. ' ' .. device[2])
return announce('device_moved', {device = id, home = new, body = old})
""",
    announces={RecordType.DEVICE_MOVED},
    charges=True,
)

_LEAVE: Final = """
-- KEYS: …, devices of the home, places, then each device with what it has in its home (`stride` keys).
-- The device is as it was before somebody claimed it: its key, code, class and tag stay.
local function leave(at, stride, id, class)
  redis.call('HSET', KEYS[at], 'home', '0', 'name', '')
  redis.call('HDEL', KEYS[at], 'claimed', 'claimable_until')
  redis.call('HSET', KEYS[4], id, '0 ' .. class)
  local bytes, records = values_stored(KEYS[at + 1], KEYS[at + 2])
  release_early(commands_charge(KEYS[at + 3], KEYS[at + 4]))
  redis.call('UNLINK', unpack(KEYS, at + 1, at + stride - 1))
  return bytes, records
end
"""

RELEASE_DEVICE: Final = removing(
    _LEAVE
    + """
-- ARGV: id, home id
local device = redis.call('HMGET', KEYS[5], 'home', 'class')
if device[1] ~= ARGV[2] then return {'unknown', 'device'} end
local bytes, records = leave(5, #KEYS - 4, ARGV[1], device[2])
release('h' .. ARGV[2], bytes + COST.device, records + 1)
book('0', COST.device, 1)
redis.call('ZREM', KEYS[3], ARGV[1])
return announce('device_moved', {device = ARGV[1], body = ARGV[2]})
""",
    announces={RecordType.DEVICE_MOVED},
    charges=True,
)

RELEASE_DEVICES: Final = removing(
    _LEAVE
    + """
-- Of a deleted home: everybody has heard of that already. ARGV: home id, stride, device ids
local stride = tonumber(ARGV[2])
local bytes, records, released = 0, 0, 0
for i = 3, #ARGV do
  local at = 5 + (i - 3) * stride
  local device = redis.call('HMGET', KEYS[at], 'home', 'class')
  if device[1] == ARGV[1] then
    local freed, values = leave(at, stride, ARGV[i], device[2])
    bytes, records, released = bytes + freed, records + values, released + 1
  end
end
release('h' .. ARGV[1], bytes + released * COST.device, records + released)
book('0', released * COST.device, released)
redis.call('ZREM', KEYS[3], unpack(ARGV, 3))
return unannounced('devices_released')
""",
    charges=True,
)

DELETE_DEVICES: Final = removing(
    _OWNER
    + """
-- KEYS: …, devices of the home, devices, places, claim codes,
--       then each device, its sessions, its key, and what it has in its home (`stride` keys)
-- ARGV: home id or 0, stride, then id, hash and claim code of each
local home, stride = ARGV[1], tonumber(ARGV[2])
local count = (#ARGV - 2) / 3
for i = 0, count - 1 do
  local device = redis.call('HMGET', KEYS[7 + i * stride], 'key', 'home')
  if device[1] ~= ARGV[4 + 3 * i] or device[2] ~= home then return {'moved'} end
  -- They end first, one by one.
  if redis.call('EXISTS', KEYS[8 + i * stride]) == 1 then return {'in_session'} end
end
local bytes, records = count * COST.device, count
for i = 0, count - 1 do
  local id = ARGV[3 + 3 * i]
  local freed, values = values_stored(KEYS[10 + i * stride], KEYS[11 + i * stride])
  bytes, records = bytes + freed, records + values
  release_early(commands_charge(KEYS[12 + i * stride], KEYS[13 + i * stride]))
  redis.call('UNLINK', unpack(KEYS, 7 + i * stride, 6 + (i + 1) * stride))
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  redis.call('HDEL', KEYS[5], id)
  redis.call('HDEL', KEYS[6], ARGV[5 + 3 * i])
  announce('device_deleted', {device = id, home = home})
end
release(owner_of(home), bytes, records)
return unannounced('devices_deleted')
""",
    announces={RecordType.DEVICE_DELETED},
    charges=True,
)
