-- Delete a user who exists only because of an invitation and is a member of no home any more. Whether that was
-- so: then the project is charged for one user less.
local function forget_invited(id, user, homes, emails, phones, invited_users)
  local record = redis.call('HMGET', user, 'invited', 'unique_email', 'phone')
  if record[1] ~= '1' or redis.call('ZCARD', homes) > 0 then return false end
  if record[2] ~= '' then redis.call('HDEL', emails, record[2]) end
  if record[3] ~= '' then redis.call('HDEL', phones, record[3]) end
  redis.call('UNLINK', user)
  redis.call('ZREM', invited_users, id)
  return true
end
