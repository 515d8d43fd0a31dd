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

TAKE_ATTEMPT: Final = changing(f"""
-- KEYS: …, counter and leases of each limit. ARGV: id of the attempt, lease in ms, then each limit
-- All of them lease a place, or, when one is at its limit, none; then which, and how many ms to wait.
{_NOW}
for i = 3, #ARGV do
  local most, at = tonumber(ARGV[i]), 2 * i - 3
  local counted = tonumber(redis.call('HGET', KEYS[at], 'n') or '0')
  if counted >= most then return {{'limit', tostring(i - 3), tostring(redis.call('PTTL', KEYS[at]))}} end
  if counted + redis.call('ZCOUNT', KEYS[at + 1], '(' .. now, '+inf') >= most then
    return {{'limit', tostring(i - 3), '{_BUSY_MS}'}}
  end
end
for i = 3, #ARGV do
  redis.call('ZADD', KEYS[2 * i - 2], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[2 * i - 2], ARGV[2])
end
return unheard('attempt_leased')
""")

COUNT_ATTEMPT: Final = changing(f"""
-- KEYS: …, counter and leases of each limit. ARGV: id of the attempt, window in ms
-- The window begins with the first one that counts.
{_NOW}
for i = 3, #KEYS, 2 do
  redis.call('ZREM', KEYS[i + 1], ARGV[1])
  redis.call('HSET', KEYS[i], 'last', now)
  if redis.call('HINCRBY', KEYS[i], 'n', 1) == 1 then redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
end
return unheard('attempt_counted')
""")

RELEASE_ATTEMPT: Final = removing("""
-- KEYS: …, leases of each limit. ARGV: id of the attempt
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
return unheard('attempt_released')
""")
