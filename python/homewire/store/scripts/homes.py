"""Scripts of homes and their members. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

CREATE_HOME: Final = changing("""
-- KEYS: …, home, homes, members, owner, homes of the owner. ARGV: id, created, name, owner id
local id, owner = ARGV[1], ARGV[4]
if redis.call('EXISTS', KEYS[6]) == 0 then return {'unknown', 'user'} end
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'name', ARGV[3], 'owners', '1')
redis.call('ZADD', KEYS[4], id, id)
redis.call('HSET', KEYS[5], owner, 'owner ' .. ARGV[2])
redis.call('ZADD', KEYS[7], id, id)
return changed('member_added', {user = owner, home = id})
""")

ADD_MEMBER: Final = changing("""
-- KEYS: …, home, members, user, homes of the user. ARGV: home id, user id, role, now
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'home'} end
if redis.call('EXISTS', KEYS[5]) == 0 then return {'unknown', 'user'} end
if redis.call('HSETNX', KEYS[4], ARGV[2], ARGV[3] .. ' ' .. ARGV[4]) == 0 then return {'taken', 'member'} end
if ARGV[3] == 'owner' then redis.call('HINCRBY', KEYS[3], 'owners', 1) end
redis.call('ZADD', KEYS[6], ARGV[1], ARGV[1])
return changed('member_added', {user = ARGV[2], home = ARGV[1]})
""")

REMOVE_MEMBER: Final = removing("""
-- KEYS: …, home, members, homes of the user. ARGV: home id, user id
local membership = redis.call('HGET', KEYS[4], ARGV[2])
if not membership then
  redis.call('ZREM', KEYS[5], ARGV[1])
  return {'unknown', 'member'}
end
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'home'} end
if string.sub(membership, 1, 6) == 'owner ' then
  if redis.call('HGET', KEYS[3], 'owners') == '1' then return {'last_owner'} end
  redis.call('HINCRBY', KEYS[3], 'owners', -1)
end
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[1])
return changed('member_removed', {user = ARGV[2], home = ARGV[1]})
""")

DELETE_HOME: Final = removing("""
-- KEYS: …, home, homes, deleted homes. ARGV: id
-- From here on nobody is a member of it and no device is in it, whatever is still to be swept.
if redis.call('UNLINK', KEYS[3]) == 0 then return {'unknown', 'home'} end
redis.call('ZREM', KEYS[4], ARGV[1])
tombstone(KEYS[5], ARGV[1])
return changed('home_deleted', {home = ARGV[1]})
""")

EMPTY_HOME: Final = removing("""
-- KEYS: …, members of a deleted home, then the homes of each user. ARGV: home id, user ids
for i = 2, #ARGV do redis.call('ZREM', KEYS[i + 2], ARGV[1]) end
redis.call('HDEL', KEYS[3], unpack(ARGV, 2))
return unheard('home_emptied')
""")
