-- Store a login token. Expired ones are removed, and with one too many the one that expires first.
local user, tokens = KEYS[3], KEYS[4]
local hash, now, expires, limit = unpack(ARGV, 1, 4)
local stored = redis.call('HMGET', user, 'created', 'invited')
if not stored[1] or stored[2] == '1' then return {'unknown', 'user'} end
redis.call('ZREMRANGEBYSCORE', tokens, '-inf', now)
redis.call('ZADD', tokens, expires, hash)
redis.call('ZREMRANGEBYRANK', tokens, 0, -1 - tonumber(limit))
redis.call('PEXPIREAT', tokens, redis.call('ZRANGE', tokens, -1, -1, 'WITHSCORES')[2])
return unannounced('login_token_created')
