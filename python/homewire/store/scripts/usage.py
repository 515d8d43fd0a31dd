"""Scripts of the counters of what is stored (`accounting.py`)."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, removing

FORGET_EXPIRED: Final = removing("""
-- ARGV: how many charges at most. How many were given back.
return unheard('expired_forgotten', tostring(forget_expired(tonumber(ARGV[1]))))
""")

CORRECT_USAGE: Final = changing("""
-- KEYS: …, usage. ARGV: for each counter its name, its value as it was read, its value as it was counted anew
-- All of them, or none if one of them has changed meanwhile.
local usage = KEYS[3]
for i = 1, #ARGV, 3 do
  if (redis.call('HGET', usage, ARGV[i]) or '0') ~= ARGV[i + 1] then return {'moved'} end
end
for i = 1, #ARGV, 3 do
  if ARGV[i + 2] == '0' then
    redis.call('HDEL', usage, ARGV[i])
  else
    redis.call('HSET', usage, ARGV[i], ARGV[i + 2])
  end
end
return unheard('usage_corrected')
""")
