-- The role of a user in a home: 'owner', 'member' or nil. User 0 stands for an operator or a project key, which
-- may do what owners may.
local function role_of(members, user_id)
  if user_id == '0' then return 'owner' end
  local membership = redis.call('HGET', members, user_id)
  return membership and string.match(membership, '^%a+')
end

-- The refusal for a user without the role that a change needs (one of ROLE, from `auth/actions.py`); nil if the
-- user has it.
local function refused(home, members, user_id, needed)
  local role = redis.call('EXISTS', home) == 1 and role_of(members, user_id)
  if not role then return {'unknown', 'home'} end
  if needed ~= 'member' and role ~= 'owner' then return {'owners_only'} end
end
