"""Scripts of homes. See `script.py` for what they answer, `members.py` for who is in them."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.members import FORGETTING, JOINING, STANDING
from homewire.store.scripts.script import changing, removing

CREATE_HOME: Final = changing(f"""
-- KEYS: …, home, homes, members, owner, homes of the owner, ended keys of the owner, what the owner has not
--       accepted
-- ARGV: id, created, name, timezone or nothing, owner id, limit of homes or 0
{JOINING}
local id, owner = ARGV[1], ARGV[5]
if redis.call('EXISTS', KEYS[6]) == 0 then return {{'unknown', 'user'}} end
if is_full(KEYS[7], KEYS[9], ARGV[6]) then return {{'exceeded', 'homes'}} end
local over = over_quota('u' .. owner, COST.home + COST.member, 2)
if over then return over end
pay(id, owner)
book('h' .. id, COST.home + COST.member, 2)
redis.call('HSET', KEYS[3], 'created', ARGV[2], 'name', ARGV[3], 'timezone', ARGV[4], 'owners', '0')
redis.call('ZADD', KEYS[4], id, id)
join(KEYS[3], KEYS[5], KEYS[7], KEYS[9], id, owner, 'owner', ARGV[2])
return changed('member_added', {{user = owner, home = id, ended_keys = KEYS[8]}})
""")

UPDATE_HOME: Final = changing(f"""
-- KEYS: …, home, members. ARGV: who asks, then field and value of each change
{STANDING}
local refusal = refused(KEYS[3], KEYS[4], ARGV[1], 'owner')
if refusal then return refusal end
redis.call('HSET', KEYS[3], unpack(ARGV, 2))
return unheard('home_updated')
""")

SET_DEACTIVATED: Final = removing("""
-- KEYS: …, home. ARGV: id, 1 to deactivate it or 0 to activate it, then field and value of each other change
local home, wanted = KEYS[3], ARGV[2]
if redis.call('EXISTS', home) == 0 then return {'unknown', 'home'} end
if #ARGV > 2 then redis.call('HSET', home, unpack(ARGV, 3)) end
if (redis.call('HGET', home, 'deactivated') or '0') == wanted then return unheard('home_as_it_was') end
if wanted == '1' then
  redis.call('HSET', home, 'deactivated', '1')
  return changed('home_deactivated', {home = ARGV[1]})
end
redis.call('HDEL', home, 'deactivated')
return changed('home_activated', {home = ARGV[1]})
""")

DELETE_HOME: Final = removing(f"""
-- KEYS: …, home, members, homes, deleted homes. ARGV: id, who asks, then all its members or nothing: any
-- From here on nobody is a member of it and no device is in it, whatever is still to be swept.
{STANDING}
local refusal = refused(KEYS[3], KEYS[4], ARGV[2], 'owner')
if refusal then return refusal end
if #ARGV > 2 then
  -- Somebody may have come since it was looked.
  if redis.call('HLEN', KEYS[4]) ~= #ARGV - 2 then return {{'moved'}} end
  for i = 3, #ARGV do
    if redis.call('HEXISTS', KEYS[4], ARGV[i]) == 0 then return {{'moved'}} end
  end
end
redis.call('UNLINK', KEYS[3])
redis.call('ZREM', KEYS[5], ARGV[1])
tombstone(KEYS[6], ARGV[1])
return changed('home_deleted', {{home = ARGV[1]}})
""")

EMPTY_HOME: Final = removing(f"""
-- KEYS: …, members of a deleted home, emails, phones, invited users, then each user, their homes, and those
--       that they have not accepted
-- ARGV: home id, user ids
-- What they counted for the home is given back with the rest of it (SETTLE_HOME).
{FORGETTING}
local forgotten = 0
for i = 2, #ARGV do
  local user, homes, pending = KEYS[3 * i + 1], KEYS[3 * i + 2], KEYS[3 * i + 3]
  redis.call('ZREM', homes, ARGV[1])
  redis.call('ZREM', pending, ARGV[1])
  if forget_invited(ARGV[i], user, homes, KEYS[4], KEYS[5], KEYS[6]) then forgotten = forgotten + 1 end
end
redis.call('HDEL', KEYS[3], unpack(ARGV, 2))
release('0', forgotten * COST.user, forgotten)
return unheard('home_emptied')
""")

SETTLE_HOME: Final = removing("""
-- KEYS: …, values of a deleted home, their keys, deleted homes. ARGV: home id
-- Nothing else is left of it. However many values there are: another thread of Redis frees them.
redis.call('UNLINK', KEYS[3], KEYS[4])
settle(ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
return unheard('home_settled')
""")
