"""Scripts of nodes and their leases. By Redis' clock: those of the nodes may differ."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import Script, reading

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

ALIVE: Final = reading(f"""{_NOW}
-- KEYS: nodes
return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'LIMIT', 0, 1000)
""")

RENEW: Final = Script(f"""#!lua flags=allow-oom
{_NOW}
-- KEYS: nodes. ARGV: boot id, lease in ms, whether nobody knows it yet. 1: it lives; 0: it is dead.
local lease_end = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or (ARGV[3] == '1' and now or -1))
if lease_end < 0 then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
""")

CONDEMN: Final = Script(f"""#!lua flags=allow-oom
{_NOW}
-- KEYS: nodes. Whoever is dead, and for how long in ms.
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], 0, '(' .. now, 'LIMIT', 0, 100)
for _, boot in ipairs(ended) do redis.call('ZADD', KEYS[1], -now, boot) end
local dead, answer = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(0', 'WITHSCORES', 'LIMIT', 0, 100), {{}}
for i = 1, #dead, 2 do
  answer[i], answer[i + 1] = dead[i], string.format('%d', now + dead[i + 1])
end
return answer
""")
