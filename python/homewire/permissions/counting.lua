-- A user has a permission from a grant and from each group that has it. `held` counts these sources.
-- Whether the permission is new to the user, and so a record more.
local function gain(held, permission) return redis.call('HINCRBY', held, permission, 1) == 1 end

-- Whether the user lost the last source of the permission.
local function lose(held, permission)
  if redis.call('HINCRBY', held, permission, -1) > 0 then return false end
  redis.call('HDEL', held, permission)
  return true
end
