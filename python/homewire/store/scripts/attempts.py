"""The scripts that count attempts. See `script.py` for what they answer.

Each limit has two keys: what was counted, a hash of `n` and, in ms of Redis' clock, `last`; and the leases
of attempts without a verdict, a sorted set with their ends as scores.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_BUSY_MS: Final = 1_000
"""When to come again if only attempts without a verdict are in the way."""
IN_A_ROW: Final = 100
"""Wrong guesses in a row after which no delay is long enough (NIST 800-63B, 5.2.2)."""
NETWORKS_KNOWN: Final = 16
"""Networks that are remembered of an account: those where it logged in last."""
KNOWN_MS: Final = 90 * 86_400_000
"""For how long."""

TAKE_ATTEMPT: Final = changing(f"""
-- KEYS: …, counter and leases of each limit. ARGV: id of the attempt, lease in ms, then of each limit how
--       many, first delay in ms, longest
-- All of them lease a place, or, when one is at its limit, none; then which, and how many ms to wait. Without
-- a delay a limit is one until its counter goes. With one, what is beyond it comes one at a time, each after
-- a delay that is twice the one before.
{_NOW}
for i = 0, (#ARGV - 2) / 3 - 1 do
  local at, most, delay = 2 * i + 3, tonumber(ARGV[3 * i + 3]), tonumber(ARGV[3 * i + 4])
  local counted = redis.call('HMGET', KEYS[at], 'n', 'last')
  local n, wait = tonumber(counted[1] or '0'), 0
  local open = redis.call('ZCOUNT', KEYS[at + 1], '(' .. now, '+inf')
  if n < most then
    if n + open >= most then wait = {_BUSY_MS} end
  elseif delay == 0 or n >= {IN_A_ROW} then
    -- A counter that goes in this very moment has -2 ms left.
    wait = math.max(redis.call('PTTL', KEYS[at]), 1)
  else
    wait = counted[2] + math.min(delay * 2 ^ (n - most), tonumber(ARGV[3 * i + 5])) - now
    if wait <= 0 and open > 0 then wait = {_BUSY_MS} end
  end
  if wait > 0 then return {{'limit', tostring(i), string.format('%d', math.ceil(wait))}} end
end
for i = 4, #KEYS, 2 do
  redis.call('ZADD', KEYS[i], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return unheard('attempt_leased')
""")

COUNT_ATTEMPT: Final = changing(f"""
-- KEYS: …, counter and leases of each limit. ARGV: id of the attempt, then of each limit its window in ms,
--       and 1 if that begins anew
{_NOW}
for i = 3, #KEYS, 2 do
  redis.call('ZREM', KEYS[i + 1], ARGV[1])
  redis.call('HSET', KEYS[i], 'last', now)
  if redis.call('HINCRBY', KEYS[i], 'n', 1) == 1 or ARGV[i] == '1' then
    redis.call('PEXPIRE', KEYS[i], ARGV[i - 1])
  end
end
return unheard('attempt_counted')
""")

RELEASE_ATTEMPT: Final = removing("""
-- KEYS: …, leases of each limit. ARGV: id of the attempt
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
return unheard('attempt_released')
""")

TRUST_NETWORK: Final = changing(f"""
-- KEYS: …, networks known of an account, counters of the limits of the account. ARGV: network
-- A right guess: no wrong ones in a row are left, and from this network the next ones are the owner's.
{_NOW}
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - {NETWORKS_KNOWN})
redis.call('PEXPIRE', KEYS[3], {KNOWN_MS})
for i = 4, #KEYS do redis.call('UNLINK', KEYS[i]) end
return unheard('network_trusted')
""")
