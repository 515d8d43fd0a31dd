-- Whether the members of a group are those that the caller read: ARGV from `first` on.
local function are_members(members, first)
  local count = #ARGV - first + 1
  if redis.call('ZCARD', members) ~= count then return false end
  if count == 0 then return true end
  for _, score in ipairs(redis.call('ZMSCORE', members, unpack(ARGV, first))) do
    if not score then return false end
  end
  return true
end
