"""Scripts of nodes and their leases. By Redis' clock: those of the nodes may differ."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import Script, reading

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

LEASES: Final = reading(f"""{_NOW}
-- KEYS: nodes. The time, then of each node that was not condemned: its boot id and the end of its lease.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
table.insert(found, 1, string.format('%d', now))
return found
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
-- KEYS: nodes. ARGV: boot ids, each with the end of its lease as it was seen: one that was renewed lives.
-- All that are condemned.
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('ZADD', KEYS[1], -now, ARGV[i]) end
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(0', 'LIMIT', 0, 100)
""")
