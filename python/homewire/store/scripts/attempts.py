"""The script that counts attempts. See `script.py` for what it answers."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

TAKE_ATTEMPT: Final = changing("""
-- KEYS: …, counters. ARGV: window in ms, then the limit of each counter
-- All of them count, or, when one is at its limit, none; then which, and how many ms are left.
for i = 3, #KEYS do
  if tonumber(redis.call('GET', KEYS[i]) or '0') >= tonumber(ARGV[i - 1]) then
    return {'limit', tostring(i - 3), tostring(redis.call('PTTL', KEYS[i]))}
  end
end
for i = 3, #KEYS do
  if redis.call('INCR', KEYS[i]) == 1 then redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
end
return unheard('attempt_counted')
""")

GIVE_BACK_ATTEMPT: Final = removing("""
-- KEYS: …, counters
for i = 3, #KEYS do
  if tonumber(redis.call('GET', KEYS[i]) or '0') > 0 then redis.call('DECR', KEYS[i]) end
end
return unheard('attempt_given_back')
""")
