"""Scripts of the commands that are kept for devices. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import changing, reading, removing

_TIDY: Final = """
-- Take one out; whether it was there.
local function take_out(commands, ends, ticket)
  local bytes = redis.call('HSTRLEN', commands, ticket)
  redis.call('ZREM', ends, ticket)
  if bytes == 0 then return end
  redis.call('HDEL', commands, ticket)
  redis.call('HINCRBY', commands, 'bytes', -bytes)
end
"""

KEEP: Final = changing(f"""{_TIDY}
-- KEYS: …, device, presence, commands, their ends, [claim of the request]
-- ARGV: device id, now, when it expires, most commands, most bytes, envelope up to its ticket and from there,
--       [fingerprint of the request, how long that is remembered in ms]
local commands, ends = KEYS[5], KEYS[6]
if redis.call('EXISTS', KEYS[3]) == 0 then return {{'unknown', 'device'}} end
if KEYS[7] then
  local before = redis.call('GET', KEYS[7])
  if before == ARGV[8] then return {{'ok'}} end
  if before then return {{'reused'}} end
end
local charged = commands_charge(commands, ends)
local expired = redis.call('ZRANGEBYSCORE', ends, '-inf', ARGV[2], 'LIMIT', 0, 100)
for _, ticket in ipairs(expired) do take_out(commands, ends, ticket) end
if #expired > 0 and release_early(charged) then
  charged = commands_charge(commands, ends)
  book_until(redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2] or ARGV[2], charged)
end
local bytes = #ARGV[6] + #ARGV[7] + 9
if redis.call('ZCARD', ends) >= tonumber(ARGV[4]) then return {{'full', 'commands'}} end
if tonumber(redis.call('HGET', commands, 'bytes') or 0) + bytes > tonumber(ARGV[5]) then
  return {{'full', 'bytes'}}
end
local over = over_quota('0', bytes + COST.command, 1)
if over then return over end
-- Counted in the record that stays: a device never gets one ticket for two commands.
local ticket = redis.call('HINCRBY', KEYS[4], 'tickets', 1)
local envelope = ARGV[6] .. cmsgpack.pack(ticket) .. ARGV[7]
redis.call('HSET', commands, ticket, envelope)
redis.call('HINCRBY', commands, 'bytes', #envelope)
redis.call('ZADD', ends, ARGV[3], ticket)
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
redis.call('PEXPIREAT', commands, last)
redis.call('PEXPIREAT', ends, last)
release_early(charged)
book_until(last, commands_charge(commands, ends))
if KEYS[7] then redis.call('SET', KEYS[7], ARGV[8], 'PX', ARGV[9]) end
-- Whoever holds the device's socket delivers it in its place among all others.
report(ARGV[1], envelope)
return unheard('command_kept')
""")

READ: Final = reading("""
-- KEYS: presence, commands, their ends. ARGV: now
local kept = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf', 'LIMIT', 0, 500)
local answer = {redis.call('HGET', KEYS[1], 'tickets') or '0'}
for i, ticket in ipairs(kept) do
  answer[2 * i], answer[2 * i + 1] = ticket, redis.call('HGET', KEYS[2], ticket)
end
return answer
""")

REMOVE: Final = removing(f"""{_TIDY}
-- KEYS: …, commands, their ends. ARGV: tickets
local last = redis.call('ZRANGE', KEYS[4], -1, -1, 'WITHSCORES')[2]
local was_charged = release_early(commands_charge(KEYS[3], KEYS[4]))
for _, ticket in ipairs(ARGV) do take_out(KEYS[3], KEYS[4], ticket) end
if redis.call('ZCARD', KEYS[4]) == 0 then
  redis.call('UNLINK', KEYS[3], KEYS[4])
elseif was_charged then
  book_until(last, commands_charge(KEYS[3], KEYS[4]))
end
return unheard('commands_delivered')
""")
