-- The first part of adding a member: refusals, and whether the user has to accept. Uses the names of its script's
-- head.
--- @include "homes/roles"
--- @include "homes/joining"
--- @include "homes/announce_membership"
local refusal = refused(home, members, caller_id, role == 'member' and ROLE.add_member or ROLE.add_owner)
if refusal then return refusal end
if redis.call('HEXISTS', members, user_id) == 1 then return {'taken', 'member'} end
if caller_id ~= '0' and tonumber(redis.call('ZSCORE', left_homes, home_id) or 0) > tonumber(now) then
  return {'left'}
end

-- What the caller typed, if the user has to accept: they have no home in common that both have agreed to.
local function unless_acquainted()
  if caller_id == '0' or redis.call('HGET', project, 'invitations') == 'immediate' then return end
  for _, id in ipairs(redis.call('ZINTER', 2, homes, caller_homes)) do
    if not redis.call('ZSCORE', pending, id) and not redis.call('ZSCORE', caller_pending, id) then return end
  end
  return typed
end
typed = unless_acquainted()
if typed and redis.call('ZCARD', pending) >= tonumber(max_pending) then
  return {'exceeded', 'invitations'}
end
if not typed and is_full(homes, pending, limit) then return {'exceeded', 'homes'} end

-- An invitation is announced to the user's connections when the user accepts it.
local function added()
  if typed then return unannounced('member_invited') end
  return announce_membership(home, home_id, user_id, ended_keys)
end
