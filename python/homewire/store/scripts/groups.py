"""Scripts of groups of users, and of what everybody in one may hear and do. See `script.py` for what they
answer, `permissions.py` for how rights are counted.

The members of a group are read before a script that touches all of them, and compared by it.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.permissions import COUNTING, ENDING
from homewire.store.scripts.script import changing, removing

_SAME_MEMBERS: Final = """
-- Whether those who were read, ARGV from `first` on, are the members.
local function are_members(members, first)
  local count = #ARGV - first + 1
  if redis.call('ZCARD', members) ~= count then return false end
  if count == 0 then return true end
  for _, score in ipairs(redis.call('ZMSCORE', members, unpack(ARGV, first))) do
    if not score then return false end
  end
  return true
end
"""

CREATE_GROUP: Final = changing("""
-- KEYS: …, group, groups. ARGV: id, name, created
local over = charge('0', COST.group, 1)
if over then return over end
redis.call('HSET', KEYS[3], 'name', ARGV[2], 'created', ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[1])
return unheard('group_created')
""")

DELETE_GROUP: Final = removing("""
-- KEYS: …, group, groups, deleted groups. ARGV: id
-- From here on it gains no right and nobody enters it; what its members have from it is taken right by right.
if redis.call('UNLINK', KEYS[3]) == 0 then return {'unknown', 'group'} end
redis.call('ZREM', KEYS[4], ARGV[1])
release('0', COST.group, 1)
tombstone(KEYS[5], ARGV[1])
return unheard('group_deleted')
""")

GRANT_TO_GROUP: Final = changing(f"""
-- KEYS: …, group, its rights and members, home or device that it is about (else the project), then the
--       rights of each member
-- ARGV: right, what it is about, most rights of a group, then the ids of the members
{COUNTING}
{_SAME_MEMBERS}
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'group'}} end
if redis.call('EXISTS', KEYS[6]) == 0 then return {{'unknown', ARGV[2]}} end
if not are_members(KEYS[5], 4) then return {{'moved'}} end
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return {{'ok'}} end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[3]) then return {{'exceeded', 'group_rights'}} end
-- Some members may have it already; then less is counted.
local members = #KEYS - 6
local over = over_quota('0', (1 + members) * COST.right, 1 + members)
if over then return over end
redis.call('ZADD', KEYS[4], 0, ARGV[1])
local stored = 1
for i = 7, #KEYS do
  if gain(KEYS[i], ARGV[1]) then stored = stored + 1 end
end
book('0', stored * COST.right, stored)
return unheard('right_granted')
""")

REVOKE_FROM_GROUP: Final = removing(f"""
-- KEYS: …, group, its rights and members, places of devices, of entities, then the rights of each member
-- ARGV: right, then the ids of the members. Also of a deleted group.
{COUNTING}
{ENDING}
{_SAME_MEMBERS}
if not redis.call('ZSCORE', KEYS[4], ARGV[1]) then
  return {{'unknown', redis.call('EXISTS', KEYS[3]) == 1 and 'permission' or 'group'}}
end
if not are_members(KEYS[5], 2) then return {{'moved'}} end
redis.call('ZREM', KEYS[4], ARGV[1])
local lost = {{}}
for i = 2, #ARGV do
  if lose(KEYS[6 + i], ARGV[1]) then table.insert(lost, ARGV[i]) end
end
release('0', (1 + #lost) * COST.right, 1 + #lost)
if #lost == 0 then return unheard('right_revoked') end
return announce_end(ARGV[1], lost, KEYS[6], KEYS[7])
""")

ENTER_GROUP: Final = changing(f"""
-- KEYS: …, group, its rights and members, user, groups and rights of the user
-- ARGV: group id, user id, most members of a group, most groups of a user
{COUNTING}
local user = redis.call('HMGET', KEYS[6], 'created', 'invited')
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'group'}} end
if not user[1] or user[2] == '1' then return {{'unknown', 'user'}} end
if redis.call('ZSCORE', KEYS[5], ARGV[2]) then return {{'ok'}} end
if redis.call('ZCARD', KEYS[5]) >= tonumber(ARGV[3]) then return {{'exceeded', 'group_members'}} end
if redis.call('ZCARD', KEYS[7]) >= tonumber(ARGV[4]) then return {{'exceeded', 'groups'}} end
local rights = redis.call('ZRANGE', KEYS[4], 0, -1)
local over = over_quota('0', COST.group_member + #rights * COST.right, 1 + #rights)
if over then return over end
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[2])
redis.call('ZADD', KEYS[7], ARGV[1], ARGV[1])
local stored = 0
for _, right in ipairs(rights) do
  if gain(KEYS[8], right) then stored = stored + 1 end
end
book('0', COST.group_member + stored * COST.right, 1 + stored)
return unheard('group_entered')
""")

QUIT_GROUP: Final = removing(f"""
-- KEYS: …, group, its rights and members, groups and rights of the user, places of devices, of entities
-- ARGV: group id, user id
{COUNTING}
{ENDING}
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'group'}} end
if redis.call('ZREM', KEYS[5], ARGV[2]) == 0 then return {{'unknown', 'member'}} end
redis.call('ZREM', KEYS[6], ARGV[1])
local lost = 0
for _, right in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  if lose(KEYS[7], right) then
    lost = lost + 1
    announce_end(right, {{ARGV[2]}}, KEYS[8], KEYS[9])
  end
end
release('0', COST.group_member + lost * COST.right, 1 + lost)
return unheard('group_quit')
""")

DISSOLVE_GROUP: Final = removing(f"""
-- KEYS: …, deleted groups, rights and members of the group, then the groups of each member
-- ARGV: group id, then the ids of the members. Of a deleted group that has no right any more.
{_SAME_MEMBERS}
if redis.call('EXISTS', KEYS[4]) == 1 or not are_members(KEYS[5], 2) then return {{'moved'}} end
local members = redis.call('ZCARD', KEYS[5])
release('0', members * COST.group_member, members)
for i = 6, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('UNLINK', KEYS[5])
redis.call('ZREM', KEYS[3], ARGV[1])
return unheard('group_dissolved')
""")

QUIT_ALL_GROUPS: Final = removing("""
-- KEYS: …, groups, grants and rights of the user, then the members of each group. ARGV: user id
-- Of a deleted user: everybody has heard of that already, and nobody grants them anything any more.
local groups, rights = 0, redis.call('ZCARD', KEYS[4]) + redis.call('HLEN', KEYS[5])
for i = 6, #KEYS do groups = groups + redis.call('ZREM', KEYS[i], ARGV[1]) end
release('0', groups * COST.group_member + rights * COST.right, groups + rights)
redis.call('UNLINK', KEYS[3], KEYS[4], KEYS[5])
return unheard('groups_quit')
""")
