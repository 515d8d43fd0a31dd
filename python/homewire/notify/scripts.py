"""The Lua of the message queues; all keys of one script lie in the slot of `{notify}`.

Times are Redis' own, in ms: the clocks of nodes may differ. An entry of a queue is a sealed letter `m`, how
often it was tried `n`, and when it was given to us `c`. What waits for its next try is in a sorted set,
as `<tries> <since> <sealed>`.
"""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import Script

_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

PUT: Final = Script(f"""#!lua
-- KEYS: queue, those that wait. ARGV: sealed letter, the most there may be. 0: full.
if redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then return 0 end
{_NOW}
redis.call('XADD', KEYS[1], '*', 'm', ARGV[1], 'n', 0, 'c', now)
return 1
""")

KEEP: Final = Script(f"""#!lua
-- KEYS: kept. ARGV: sealed letter, the most there may be, how long they are kept.
{_NOW}
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[2], '*', 'm', ARGV[1], 'c', now)
redis.call('XTRIM', KEYS[1], 'MINID', now - ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
""")
