-- Store a registration. An address has at most `limit` of them: the oldest are removed, with their tokens. A
-- registration is a member of a sorted set, with its end in ms as score:
-- `<hash of the token> <hash of the password, or -> <name>`.
local function store_registration(registrations, hash, password, name, expires, now, limit)
  redis.call('ZREMRANGEBYSCORE', registrations, '-inf', now)
  local text = hash .. ' ' .. (password == '' and '-' or password) .. ' ' .. name
  redis.call('ZADD', registrations, expires, text)
  redis.call('ZREMRANGEBYRANK', registrations, 0, -1 - limit)
  redis.call('PEXPIREAT', registrations, redis.call('ZRANGE', registrations, -1, -1, 'WITHSCORES')[2])
end
