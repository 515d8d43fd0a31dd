"""Scripts of what users may hear and do in projects with access by permission. See `script.py` for what they
answer.

A right is the text of a `model.Right`. A user has it from a grant of their own and from each of their groups
that has it: `rights` counts these sources, and whoever loses the last one loses the right.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

COUNTING: Final = """
-- Whether it is new to them, and a record more.
local function gain(rights, right) return redis.call('HINCRBY', rights, right, 1) == 1 end
-- Whether that was the last source.
local function lose(rights, right)
  if redis.call('HINCRBY', rights, right, -1) > 0 then return false end
  redis.call('HDEL', rights, right)
  return true
end
"""

ENDING: Final = """
-- Everybody hears which users lost a right. `place` are the places of devices and of entities.
local function announce_end(right, users, device_place, entity_place)
  local action, kind, subject = string.match(right, '^(%a+):([%a-]+):(.*)$')
  local body = '{"users":[' .. table.concat(users, ',') .. ']'
  local about = {}
  if action == 'read' and kind == 'home-events' then
    about.home = subject
  elseif action == 'read' and kind == 'device' then
    about.device = subject
    about.home = string.match(redis.call('HGET', device_place, subject) or '', '^%d+')
  elseif action == 'read' and kind == 'entity-events' then
    about.home = string.match(redis.call('HGET', entity_place, subject) or '', '^%d+')
    body = body .. ',"entity":' .. cjson.encode(subject)
  end
  about.body = body .. '}'
  return changed('permission_ended', about)
end
"""

GRANT_TO_USER: Final = changing(f"""
-- KEYS: …, user, grants and rights of the user, home or device that it is about (else the project)
-- ARGV: right, what it is about, most grants of a user
{COUNTING}
local user = redis.call('HMGET', KEYS[3], 'created', 'invited')
if not user[1] or user[2] == '1' then return {{'unknown', 'user'}} end
if redis.call('EXISTS', KEYS[6]) == 0 then return {{'unknown', ARGV[2]}} end
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {{'ok'}} end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[3]) then return {{'exceeded', 'grants'}} end
local over = over_quota('0', 2 * COST.right, 2)
if over then return over end
redis.call('ZADD', KEYS[4], 0, ARGV[1])
local stored = gain(KEYS[5], ARGV[1]) and 2 or 1
book('0', stored * COST.right, stored)
return unheard('right_granted')
""")

REVOKE_FROM_USER: Final = removing(f"""
-- KEYS: …, grants and rights of the user, places of devices, of entities. ARGV: right, user id
{COUNTING}
{ENDING}
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return {{'unknown', 'permission'}} end
local is_lost = lose(KEYS[4], ARGV[1])
local freed = is_lost and 2 or 1
release('0', freed * COST.right, freed)
if not is_lost then return {{'ok'}} end
return announce_end(ARGV[1], {{ARGV[2]}}, KEYS[5], KEYS[6])
""")
