"""Scripts of sessions. See `script.py` for what they answer.

Sessions that are over: readable for a while, and only the newest of each user and device.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.errors import Unavailable
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import MAX_ENDED_KEYS, changing, removing

ENDED_KEPT_MS: Final = 60_000
"""How much later than another shard, at most, a reader may come to the user's own, where the end of a key
stands in any case."""
ALWAYS_OPENED: Final = 10
"""Live sessions of a user or device that no quota refuses."""
LEASE_MS: Final = 30_000
"""How long a request keeps its session from being ended, unless it ends before."""

_NOW: Final = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_MADE_WITH_KEYS: Final = """
-- The sessions of a user that were made with keys, and their ancestors. They are few: MAX_ALL_DERIVED.
local function made_with_keys(index)
  local ids, ancestors, found = redis.call('HKEYS', index), redis.call('HVALS', index), {}
  for i, id in ipairs(ids) do found[id] = ancestors[i] end
  return found
end
"""

# `kind` and `name` are what the key will say of its holder, `owner` what the session counts for.
_STORE_SESSION: Final = f"""
local ALWAYS_OPENED = {ALWAYS_OPENED}
{_MADE_WITH_KEYS}
local ancestors = ARGV[9]
-- Of these sessions the one that expires first; one without an expiry has lost its record.
local function first_to_expire(ids)
  local first, soonest
  for _, id in ipairs(ids) do
    local expires = tonumber(redis.call('ZSCORE', KEYS[4], id) or 0)
    if not soonest or expires < soonest then first, soonest = id, expires end
  end
  return first
end
-- Which session has to end before this one is opened. One that was made with a key gives way to every other,
-- and takes the place of none that a login opened.
local function in_the_way()
  local is_full = redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[7])
  if ancestors == '' and not is_full then return end
  local root, own, derived = string.sub(ancestors, 1, 24), {{}}, {{}}
  for id, its in pairs(made_with_keys(KEYS[8])) do
    if not string.find(ancestors, id, 1, true) then
      table.insert(derived, id)
      if string.sub(its, 1, 24) == root then table.insert(own, id) end
    end
  end
  if #own >= tonumber(ARGV[10]) then return first_to_expire(own) end
  if not is_full and #derived < tonumber(ARGV[11]) then return end
  if #own > 0 then return first_to_expire(own) end
  if #derived > 0 then return first_to_expire(derived) end
  return ancestors == '' and redis.call('ZRANGE', KEYS[4], 0, 0)[1] or ''
end
local dead = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ARGV[4], 'LIMIT', 0, 100)
if #dead > 0 then
  redis.call('ZREM', KEYS[4], unpack(dead))
  redis.call('ZREM', KEYS[7], unpack(dead))
  redis.call('HDEL', KEYS[8], unpack(dead))
  for _, id in ipairs(dead) do redis.call('ZADD', KEYS[10], ARGV[4], id) end
  redis.call('PEXPIREAT', KEYS[10], ARGV[6])
end
local obstacle = in_the_way()
if obstacle == '' then return {{'exceeded', 'sessions'}} end
if obstacle then return {{'full', obstacle}} end
local bytes = COST.session
for i = 12, #ARGV do bytes = bytes + #ARGV[i] end
-- Who stores too much must be able to sign in, to delete some of it.
local over = redis.call('ZCARD', KEYS[4]) >= ALWAYS_OPENED and over_quota(owner, bytes, 1)
if over then return over end
local charged = charge_name(KEYS[5], owner, bytes, 1)
book_until(ARGV[6], charged)
redis.call('HSET', KEYS[5], 'charged', charged, unpack(ARGV, 12))
if ancestors ~= '' then redis.call('HSET', KEYS[8], ARGV[2], ancestors) end
redis.call('PEXPIREAT', KEYS[5], ARGV[6])
redis.call('HSET', KEYS[6], 'kind', kind, 'id', ARGV[1], 'name', name, 'permissions', '',
  'expires', ARGV[5], 'ends', redis.call('HGET', KEYS[5], 'ends'), 'session', ARGV[2])
redis.call('PEXPIREAT', KEYS[6], ARGV[5])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[2])
redis.call('ZADD', KEYS[7], ARGV[4], ARGV[2])
-- Of many at once the latest counts, whichever comes last.
if tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[3], 'last_login') or 0) then
  redis.call('HSET', KEYS[3], 'last_login', ARGV[4])
end
return unannounced('session_opened')
"""

OPEN_SESSION: Final = changing(
    f"""
-- KEYS: …, user, sessions of the user, session, key, sessions of the project,
--       sessions of the user that were made with keys, session whose key makes this one, sessions of the user
--       that are over
-- ARGV: user id, session id, hash, started, expires, record kept until, limit,
--       hash of the password that was right or nothing, ids of the sessions whose keys led to this one or
--       nothing, the most that one login's keys may lead to, the most in all, fields and values of the record
--       (app first)
local user = redis.call('HMGET', KEYS[3], 'created', 'invited', 'password')
if not user[1] or user[2] == '1' then return {{'unknown', 'user'}} end
if ARGV[8] ~= '' and user[3] ~= ARGV[8] then return {{'moved'}} end
if ARGV[9] ~= '' then
  local parent = redis.call('HMGET', KEYS[9], 'closed', 'expires', 'user')
  if parent[1] ~= '0' or tonumber(parent[2]) <= tonumber(ARGV[4]) or parent[3] ~= ARGV[1] then
    return {{'unknown', 'session'}}
  end
end
local kind, name, owner = 'user', ARGV[13], 'u' .. ARGV[1]
{_STORE_SESSION}""",
    charges=True,
)

OPEN_NODE_SESSION: Final = changing(
    f"""
-- KEYS: …, device, sessions of the device, session, key, sessions of the project, two that do not exist,
--       sessions of the device that are over
-- ARGV: as of OPEN_SESSION, of a device; the hash is that of the device's own key, and no key of a session
--       opens one
local device = redis.call('HMGET', KEYS[3], 'class', 'key')
if not device[1] then return {{'unknown', 'device'}} end
if ARGV[8] ~= '' and device[2] ~= ARGV[8] then return {{'moved'}} end
local kind, name, owner = 'device', device[1], '0'
{_STORE_SESSION}""",
    charges=True,
)

END_SESSION: Final = removing(
    f"""
local ENDED_KEPT_MS, MAX_ENDED_KEYS = {ENDED_KEPT_MS}, {MAX_ENDED_KEYS}
{_MADE_WITH_KEYS}
-- KEYS: …, sessions of the user or device, homes of the user, ended keys of the user, sessions of the
--       project, those of the user that were made with keys; then session, key and leases of each that ends;
--       sessions of the user or device that are over
-- ARGV: closed, record kept until, user id, device id, 1 if whatever the leases say; then id and hash of each
--       that ends: the one that is meant, and those that its key led to
local homes, ended_keys, over_index = KEYS[4], KEYS[5], table.remove(KEYS)
local closed, kept_until, user, device, though_leased = unpack(ARGV, 1, 5)
local meant = redis.call('HMGET', KEYS[8], 'closed', 'user', 'key', 'expires')
if meant[1] ~= '0' or meant[2] ~= user or meant[3] ~= ARGV[7]
  or tonumber(meant[4]) <= tonumber(closed) then return {{'unknown', 'session'}} end
local given = {{}}
for i = 6, #ARGV, 2 do given[ARGV[i]] = true end
for id, ancestors in pairs(made_with_keys(KEYS[7])) do
  -- Opened since it was looked.
  if string.find(ancestors, ARGV[6], 1, true) and not given[id] then return {{'moved'}} end
end
{_NOW}
for i = 10, #KEYS, 3 do
  if though_leased ~= '1' and redis.call('ZCOUNT', KEYS[i], '(' .. now_ms, '+inf') > 0 then
    return {{'leased'}}
  end
end
-- Of each further one some 20 elements are touched.
local reach = user ~= '0' and listed(homes, 10 * (#ARGV - 7)) or ''
local function end_one(i)
  local record, key, id, hash = KEYS[8 + 3 * i], KEYS[9 + 3 * i], ARGV[6 + 2 * i], ARGV[7 + 2 * i]
  redis.call('ZREM', KEYS[3], id)
  redis.call('ZREM', KEYS[6], id)
  redis.call('HDEL', KEYS[7], id)
  local known = redis.call('HMGET', record, 'closed', 'key', 'charged')
  if known[1] ~= '0' or known[2] ~= hash then return false end
  redis.call('HSET', record, 'closed', closed)
  redis.call('HINCRBY', record, 'version', 1)
  redis.call('PEXPIREAT', record, kept_until)
  prolong(kept_until, known[3])
  redis.call('ZADD', over_index, closed, id)
  redis.call('UNLINK', key)
  -- For the records of homes that the user enters within the next minute.
  if user ~= '0' then redis.call('ZADD', ended_keys, closed, string.sub(hash, 1, 16)) end
  return true
end
for i = 1, (#ARGV - 7) / 2 do
  if end_one(i) then announce('key_ended', {{user = user, key_hash = ARGV[7 + 2 * i], listed = reach}}) end
end
end_one(0)
redis.call('PEXPIREAT', over_index, kept_until)
if device ~= '0' then return announce('key_ended', {{device = device, key_hash = ARGV[7]}}) end
redis.call('ZREMRANGEBYSCORE', ended_keys, '-inf', closed - ENDED_KEPT_MS)
redis.call('ZREMRANGEBYRANK', ended_keys, 0, -1 - MAX_ENDED_KEYS)
redis.call('PEXPIRE', ended_keys, ENDED_KEPT_MS)
return announce('key_ended', {{user = user, key_hash = ARGV[7], listed = reach}})
""",
    announces={RecordType.KEY_ENDED},
    charges=True,
)

FORGET_ENDED: Final = removing(
    """
-- KEYS: …, sessions of a user or device that are over, then each session. ARGV: now, their ids
for i = 2, #ARGV do
  local record = KEYS[2 + i]
  local session = redis.call('HMGET', record, 'closed', 'expires', 'charged')
  if session[1] and (session[1] ~= '0' or tonumber(session[2]) <= tonumber(ARGV[1])) then
    release_early(session[3])
    redis.call('UNLINK', record)
  end
  redis.call('ZREM', KEYS[3], ARGV[i])
end
return unannounced('ended_sessions_forgotten')
""",
    charges=True,
)

FORGET_SESSIONS: Final = removing("""
-- KEYS: …, sessions of the project; then sessions of a user or device and those that were made with keys, or
--       nothing. ARGV: ids that are over
for i = 3, math.min(#KEYS, 4) do redis.call('ZREM', KEYS[i], unpack(ARGV)) end
if KEYS[5] then redis.call('HDEL', KEYS[5], unpack(ARGV)) end
return unannounced('sessions_forgotten')
""")

LEASE_SESSION: Final = changing(f"""
-- KEYS: …, session, leases. ARGV: name of the lease, now. By Redis' clock: whoever ends it may have another.
local session = redis.call('HMGET', KEYS[3], 'closed', 'expires')
if session[1] ~= '0' or tonumber(session[2]) <= tonumber(ARGV[2]) then return {{'unknown', 'session'}} end
{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now_ms)
redis.call('ZADD', KEYS[4], now_ms + {LEASE_MS}, ARGV[1])
redis.call('PEXPIRE', KEYS[4], {LEASE_MS})
return unannounced('session_leased')
""")


FORGOTTEN: Final = 50
"""Sessions that one script forgets, which touches ten elements for each."""


class EndedSessions:
    """Keeps at most `most` sessions of each user and device that are over; 0: all, for 30 days."""

    def __init__(self, database: Database, most: int = 0) -> None:
        self._database = database
        self._most = most

    async def forget_oldest(self, slot: ProjectSlot, index: str) -> None:
        """Those in excess. Whose session was just opened or ended is not told of a Redis that is away: the
        next time makes up for it."""
        if self._most:
            with suppress(Unavailable):
                await self._forget(slot, index, self._most)

    async def forget_all(self, slot: ProjectSlot, index: str) -> None:
        """Those of a user or device that is deleted. Raises Unavailable."""
        await self._forget(slot, index, 0)

    async def _forget(self, slot: ProjectSlot, index: str, kept: int) -> None:
        more = True
        while more:
            count, oldest = await self._database.read_together(
                ("ZCARD", index), ("ZRANGE", index, 0, FORGOTTEN - 1)
            )
            ids = [each.decode() for each in oldest[: max(0, count - kept)]]
            if not ids:
                return
            answer = await self._database.change(
                FORGET_ENDED, slot, [index, *map(slot.session, ids)], [self._database.now_ms(), *ids]
            )
            require_ok(answer, project=slot.project_id)
            more = count - len(ids) > kept
