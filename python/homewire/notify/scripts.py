"""The Lua of the message queues; all keys of one script lie in the slot of `{notify}`.

Times are Redis' own, in ms: the clocks of nodes may differ. An entry of a queue is a sealed letter `m`, how
often it was tried `n`, and when it was given to us `c`. What waits for its next try is in a sorted set,
as `<tries> <since> <sealed>`.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.copying import COPYING
from homewire.store.scripts.script import Script

_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

QUEUE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, the places copied to it last. ARGV: how long these are remembered in ms, the most that is kept
-- or 0: it is carried; how long it is kept; then places and sealed letters.
{_NOW}
{COPYING}
local queued = copy(4, function(sealed) redis.call('XADD', KEYS[1], '*', 'm', sealed, 'n', 0, 'c', now) end)
if ARGV[2] ~= '0' then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])
  redis.call('XTRIM', KEYS[1], 'MINID', now - ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return queued
""")

DONE: Final = Script("""#!lua flags=allow-oom
-- KEYS: queue. ARGV: group, entry.
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
""")

DEFER: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, those that wait. ARGV: group, entry, what waits, for how long. 0: another dealt with it.
{_NOW}
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
return 1
""")

BURY: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, dead. ARGV: group, entry, sealed letter, since, problem, the most there may be, how long kept
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
{_NOW}
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[6], '*', 'm', ARGV[3], 'c', ARGV[4], 'p', ARGV[5])
redis.call('XTRIM', KEYS[2], 'MINID', now - ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
return 1
""")

PROMOTE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: queue, those that wait. ARGV: the most. What is due goes back to the end of the queue;
-- what is no letter goes.
{_NOW}
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, each in ipairs(due) do
  local tries, since, sealed = string.match(each, '^(%d+) (%d+) (.+)$')
  if sealed then redis.call('XADD', KEYS[1], '*', 'm', sealed, 'n', tries, 'c', since) end
  redis.call('ZREM', KEYS[2], each)
end
return #due
""")
