"""Scripts of housekeeping: which projects have something to be swept, and who looks. By Redis' clock: those
of the nodes may differ."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import Script

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

NOTE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: unfinished. ARGV: project, when to look, in ms from now
{_NOW}
return redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
""")

TAKE: Final = Script(f"""#!lua flags=allow-oom
-- KEYS: unfinished. ARGV: how many at most, for how long in ms. Until when they are taken, then the projects.
{_NOW}
local taken = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, project in ipairs(taken) do redis.call('ZADD', KEYS[1], now + ARGV[2], project) end
table.insert(taken, 1, now + ARGV[2])
return taken
""")

FINISHED: Final = Script("""#!lua flags=allow-oom
-- KEYS: unfinished. ARGV: project, until when it was taken. One noted again meanwhile stays.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
""")
