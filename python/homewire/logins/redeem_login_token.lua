-- Spend a login token: of several requests at once, only one succeeds.
local tokens = KEYS[3]
local hash, now = ARGV[1], ARGV[2]
local expires = redis.call('ZSCORE', tokens, hash)
if not expires or tonumber(expires) <= tonumber(now) then return {'wrong'} end
redis.call('ZREM', tokens, hash)
return unannounced('login_token_redeemed')
