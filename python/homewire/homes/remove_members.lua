-- Remove members from a deleted home. KEYS from 7 on: of each member the user, the homes of the user, and those
-- that the user has not accepted. ARGV from 2 on: the ids of the members.
-- Charges of the home itself are released with the rest of it (settle_home.lua).
local members, emails, phones, invited_users = unpack(KEYS, 3, 6)
local home_id = ARGV[1]
--- @include "homes/forgetting"
local forgotten = 0
for i = 2, #ARGV do
  local user, homes, pending = unpack(KEYS, 3 * i + 1, 3 * i + 3)
  redis.call('ZREM', homes, home_id)
  redis.call('ZREM', pending, home_id)
  if forget_invited(ARGV[i], user, homes, emails, phones, invited_users) then forgotten = forgotten + 1 end
end
redis.call('HDEL', members, unpack(ARGV, 2))
release('0', forgotten * COST.user, forgotten)
return unannounced('members_removed')
