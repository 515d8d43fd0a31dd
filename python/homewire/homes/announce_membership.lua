-- Announce a membership. Connections of a member receive events of a deactivated home from its activation on.
local function announce_membership(home, home_id, user_id, ended_keys)
  local about = {user = user_id, home = home_id, ended_keys = ended_keys}
  if is_deactivated(home) then return announce('member_waits', about) end
  return announce('member_added', about)
end
