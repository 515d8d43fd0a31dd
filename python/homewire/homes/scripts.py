"""Scripts of who is a member of a home. See `script.py` for what they answer.

Who asks is the id of a user, or 0: an operator or a project key, who may do what owners may.

Scripts of homes. See `script.py` for what they answer, `members.py` for who is in them.
"""

from __future__ import annotations

from typing import Final

from homewire.store.script import changing, removing

STANDING: Final = """
-- What somebody is in a home: owner, member or nil.
local function standing(members, somebody)
  if somebody == '0' then return 'owner' end
  local membership = redis.call('HGET', members, somebody)
  return membership and string.match(membership, '^%a+')
end
-- Why somebody may not do what only those of a role may; nil if they may.
local function refused(home, members, somebody, role)
  local is = redis.call('EXISTS', home) == 1 and standing(members, somebody)
  if not is then return {'unknown', 'home'} end
  if role == 'owner' and is ~= 'owner' then return {'owners_only'} end
end
"""

JOINING: Final = """
-- Whether somebody is in as many homes as they may be.
-- What strangers added them to does not count.
local function is_full(homes, pending, limit)
  return limit ~= '0' and redis.call('ZCARD', homes) - redis.call('ZCARD', pending) >= tonumber(limit)
end
-- `typed`: by what a stranger added somebody, who has to accept.
local function join(home, members, homes, pending, home_id, user_id, role, now, typed)
  redis.call('HSET', members, user_id, role .. ' ' .. now .. (typed and ' ' .. typed or ''))
  if role == 'owner' then redis.call('HINCRBY', home, 'owners', 1) end
  redis.call('ZADD', homes, home_id, home_id)
  if typed then redis.call('ZADD', pending, home_id, home_id) end
end
-- Who joins a home that is deactivated hears it once it is activated.
local function joined(home, home_id, user_id, ended_keys)
  local about = {user = user_id, home = home_id, ended_keys = ended_keys}
  if is_deactivated(home) then return changed('member_waits', about) end
  return changed('member_added', about)
end
"""

FORGETTING: Final = """
-- Who was only invited, and is in no home any more, goes. Whether that was so: the project is charged less
-- then.
local function forget_invited(id, user, homes, emails, phones, invited_index)
  local record = redis.call('HMGET', user, 'invited', 'unique_email', 'phone')
  if record[1] ~= '1' or redis.call('ZCARD', homes) > 0 then return false end
  if record[2] ~= '' then redis.call('HDEL', emails, record[2]) end
  if record[3] ~= '' then redis.call('HDEL', phones, record[3]) end
  redis.call('UNLINK', user)
  redis.call('ZREM', invited_index, id)
  return true
end
"""

_ADDING: Final = f"""
{STANDING}
{JOINING}
local home, members, user, homes = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local ended_keys, pending = KEYS[7], KEYS[8]
local home_id, user_id, role, now, limit, asking, typed, most_pending = unpack(ARGV, 1, 8)
local refusal = refused(home, members, asking, role)
if refusal then return refusal end
if redis.call('HEXISTS', members, user_id) == 1 then return {{'taken', 'member'}} end
if asking ~= '0' and tonumber(redis.call('ZSCORE', KEYS[11], home_id) or 0) > tonumber(now) then
  return {{'left'}}
end
-- Whether who asks is a stranger: there is no home that both are in and have agreed to. Then what was typed.
local function unless_they_met()
  if asking == '0' or redis.call('HGET', project, 'invitations') == 'immediate' then return end
  for _, id in ipairs(redis.call('ZINTER', 2, homes, KEYS[9])) do
    if not redis.call('ZSCORE', pending, id) and not redis.call('ZSCORE', KEYS[10], id) then return end
  end
  return typed
end
typed = unless_they_met()
if typed and redis.call('ZCARD', pending) >= tonumber(most_pending) then
  return {{'exceeded', 'invitations'}}
end
if not typed and is_full(homes, pending, limit) then return {{'exceeded', 'homes'}} end
-- Of a stranger's act the user's sockets are told when the user accepts.
local function added()
  if typed then return unheard('member_invited') end
  return joined(home, home_id, user_id, ended_keys)
end
"""

ADD_MEMBER: Final = changing(f"""
-- KEYS: …, home, members, user, homes of the user, ended keys of the user, what the user has not accepted,
--       homes of who asks, what those have not accepted, homes that the user left
-- ARGV: home id, user id, role, now, limit of homes or 0, who asks, what they typed, the most not accepted
if redis.call('EXISTS', KEYS[5]) == 0 then return {{'unknown', 'user'}} end
{_ADDING}
local over = charge('h' .. home_id, COST.member, 1)
if over then return over end
join(home, members, homes, pending, home_id, user_id, role, now, typed)
return added()
""")

INVITE_MEMBER: Final = changing(f"""
-- KEYS: as of ADD_MEMBER, users by address, unverified users, invited users
-- ARGV: as of ADD_MEMBER, 1 if the id is new, address in its unique form, email, its unique form, phone,
--       queue and letter of the invitation
-- Whose address it is was read before; nobody's, and they become an invited user.
local holder = redis.call('HGET', KEYS[12], ARGV[10])
if holder ~= (ARGV[9] ~= '1' and ARGV[2]) then return {{'moved'}} end
{_ADDING}
local users = holder and 0 or 1
local over = over_quota('h' .. home_id, COST.member + users * COST.user, 1 + users)
if over then return over end
book('h' .. home_id, COST.member, 1)
if not holder then
  book('0', COST.user, 1)
  redis.call('HSET', user, 'created', now, 'name', '', 'password', '', 'email', ARGV[11],
    'unique_email', ARGV[12], 'phone', ARGV[13], 'external_key', '', 'verified', '0', 'invited', '1')
  redis.call('HSET', KEYS[12], ARGV[10], user_id)
end
-- Who registered and never came back is from now on somebody who was invited.
if not holder or redis.call('ZREM', KEYS[13], user_id) == 1 then
  redis.call('ZADD', KEYS[14], now, user_id)
end
join(home, members, homes, pending, home_id, user_id, role, now, typed)
post(ARGV[14], ARGV[15])
return added()
""")

ACCEPT_MEMBERSHIP: Final = changing(f"""
-- KEYS: …, home, members, homes of the user, what the user has not accepted, ended keys of the user
-- ARGV: home id, user id, limit of homes or 0
{JOINING}
local home, members, homes = KEYS[3], KEYS[4], KEYS[5]
local membership = redis.call('EXISTS', home) == 1 and redis.call('HGET', members, ARGV[2])
if not membership then return {{'unknown', 'home'}} end
if not redis.call('ZSCORE', KEYS[6], ARGV[1]) then return unheard('was_accepted') end
if is_full(homes, KEYS[6], ARGV[3]) then return {{'exceeded', 'homes'}} end
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('HSET', members, ARGV[2], string.match(membership, '^%a+ %d+'))
return joined(home, ARGV[1], ARGV[2], KEYS[7])
""")

REMOVE_MEMBER: Final = removing(f"""
-- KEYS: …, home, members, homes of the user, homes, deleted homes, user, emails, phones, invited users,
--       what the user has not accepted, homes that the user left
-- ARGV: home id, user id, who asks, now, until when it is remembered that the user left, how many homes are
{STANDING}
{FORGETTING}
local home, members, homes = KEYS[3], KEYS[4], KEYS[5]
local membership = redis.call('HGET', members, ARGV[2])
if not membership then redis.call('ZREM', homes, ARGV[1]) end
local refusal = refused(home, members, ARGV[3], ARGV[2] == ARGV[3] and 'member' or 'owner')
if refusal then return refusal end
if not membership then return {{'unknown', 'member'}} end
if redis.call('HLEN', members) == 1 then
  -- Nobody would be left.
  redis.call('UNLINK', home)
  redis.call('ZREM', KEYS[6], ARGV[1])
  tombstone(KEYS[7], ARGV[1])
  local answer = changed('home_deleted', {{home = ARGV[1]}})
  answer[2] = 'home_deleted'
  return answer
end
if string.sub(membership, 1, 6) == 'owner ' then
  if redis.call('HGET', home, 'owners') == '1' then return {{'last_owner'}} end
  redis.call('HINCRBY', home, 'owners', -1)
end
redis.call('HDEL', members, ARGV[2])
redis.call('ZREM', homes, ARGV[1])
redis.call('ZREM', KEYS[12], ARGV[1])
if ARGV[2] == ARGV[3] then
  redis.call('ZREMRANGEBYSCORE', KEYS[13], '-inf', ARGV[4])
  redis.call('ZADD', KEYS[13], ARGV[5], ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[13], 0, -1 - tonumber(ARGV[6]))
  redis.call('PEXPIREAT', KEYS[13], ARGV[5])
end
release('h' .. ARGV[1], COST.member, 1)
stop_paying(ARGV[1], ARGV[2])
if forget_invited(ARGV[2], KEYS[8], homes, KEYS[9], KEYS[10], KEYS[11]) then release('0', COST.user, 1) end
-- Where rights say what is heard, a home is heard with or without membership: no listener is to lose it.
return changed('member_removed', {{user = ARGV[2], home = by_permission() and 0 or ARGV[1]}})
""")

SET_ROLE: Final = changing(f"""
-- KEYS: …, home, members. ARGV: home id, user id, role or nothing: as it is; who asks
{STANDING}
local home, members = KEYS[3], KEYS[4]
local refusal = refused(home, members, ARGV[4], 'owner')
if refusal then return refusal end
local membership = redis.call('HGET', members, ARGV[2])
if not membership then return {{'unknown', 'member'}} end
local was, since = string.match(membership, '^(%a+) (.+)$')
if ARGV[3] == '' or was == ARGV[3] then return {{'ok'}} end
if was == 'owner' and redis.call('HGET', home, 'owners') == '1' then return {{'last_owner'}} end
redis.call('HINCRBY', home, 'owners', ARGV[3] == 'owner' and 1 or -1)
redis.call('HSET', members, ARGV[2], ARGV[3] .. ' ' .. since)
return unheard('role_set')
""")


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
