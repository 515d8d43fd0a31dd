"""Scripts of login tokens. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

CREATE_LOGIN_TOKEN: Final = changing("""
-- KEYS: …, user, login tokens of the user. ARGV: hash, now, expires, most
-- Those whose time is over go, and with one too many the one that expires first.
local user = redis.call('HMGET', KEYS[3], 'created', 'invited')
if not user[1] or user[2] == '1' then return {'unknown', 'user'} end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ARGV[2])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[4]))
redis.call('PEXPIREAT', KEYS[4], redis.call('ZRANGE', KEYS[4], -1, -1, 'WITHSCORES')[2])
return unheard('login_token_created')
""")

REDEEM_LOGIN_TOKEN: Final = removing("""
-- KEYS: …, login tokens of the user. ARGV: hash, now
-- Whoever takes it away has it: of many at once, one.
local expires = redis.call('ZSCORE', KEYS[3], ARGV[1])
if not expires or tonumber(expires) <= tonumber(ARGV[2]) then return {'wrong'} end
redis.call('ZREM', KEYS[3], ARGV[1])
return unheard('login_token_redeemed')
""")
