"""Scripts of smart modules. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.store.scripts.script import Script, changing, removing

CREATE_MODULE: Final = changing("""
-- KEYS: …, module, modules, then the homes it is for, if not for all
-- ARGV: id, modules a project may have, name and value of each field
if redis.call('EXISTS', KEYS[3]) == 1 then return {'taken', 'smart_module'} end
if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[2]) then return {'taken', 'module_place'} end
for i = 5, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {'unknown', 'home'} end
end
local bytes = COST.module
for i = 3, #ARGV do bytes = bytes + #ARGV[i] end
local over = charge('0', bytes, 1)
if over then return over end
local now = redis.call('TIME')
redis.call('HSET', KEYS[3], 'since', now[1] * 1000 + math.floor(now[2] / 1000), 'charged', bytes,
  unpack(ARGV, 3))
redis.call('ZADD', KEYS[4], 0, ARGV[1])
return unheard('smart_module_created')
""")

ROTATE_MODULE_KEY: Final = changing("""
-- KEYS: …, module. ARGV: the new key, sealed; until when, in ms, the one before signs, too: 0: no more.
local old = redis.call('HGET', KEYS[3], 'key')
if not old then return {'unknown', 'smart_module'} end
redis.call('HSET', KEYS[3], 'key', ARGV[1])
if ARGV[2] == '0' then redis.call('HDEL', KEYS[3], 'old_key', 'old_key_until')
else redis.call('HSET', KEYS[3], 'old_key', old, 'old_key_until', ARGV[2]) end
return unheard('smart_module_key_rotated')
""")

SUSPEND_MODULE: Final = changing("""
-- KEYS: …, module. ARGV: 1 or 0: to resume it. What it was broken by is forgotten with that.
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', 'smart_module'} end
redis.call('HSET', KEYS[3], 'suspended', ARGV[1])
redis.call('HDEL', KEYS[3], 'broken_until')
return unheard('smart_module_suspended')
""")

DELETE_MODULE: Final = removing("""
-- KEYS: …, modules, module, and all that is kept of it. ARGV: id. UNLINK frees outside of the script.
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 then return {'unknown', 'smart_module'} end
release('0', redis.call('HGET', KEYS[4], 'charged') or 0, 1)
redis.call('UNLINK', unpack(KEYS, 4))
return unheard('smart_module_deleted')
""")

BEGIN_READING: Final = Script("""#!lua
-- KEYS: a shard's stream. ARGV: group, behind which entry. One that hears it already goes on.
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP') then
  return redis.error_reply(made.err)
end
return 1
""")

FORGET_READERS: Final = Script("""#!lua flags=allow-oom
-- KEYS: a shard's stream. ARGV: group, ms. Those who have nothing in their hands and asked for nothing for so
-- long are dead: a node that reads asks every second. Between look and removal nobody can read.
local forgotten = 0
for _, reader in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local known = {}
  for i = 1, #reader, 2 do known[reader[i]] = reader[i + 1] end
  if forgotten < 100 and known.pending == 0 and known.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], known.name)
    forgotten = forgotten + 1
  end
end
return forgotten
""")

NOTE_CHANGE: Final = Script("""#!lua flags=allow-oom
-- KEYS: version, projects. ARGV: project. Its modules changed, or are about to.
local version = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], version)
return version
""")

FORGET_PROJECT: Final = Script("""#!lua flags=allow-oom
-- KEYS: projects. ARGV: project, version: it had no modules then, and nothing changed since.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
""")

EXPECT_DELIVERIES: Final = Script("""#!lua
-- KEYS: waiting. ARGV: `<project>:<module>`, several. By Redis' clock: those of the nodes may differ.
local now = redis.call('TIME')
for i = 1, #ARGV do
  redis.call('ZADD', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), ARGV[i])
end
return 1
""")

FORGET_WAITING: Final = Script("""#!lua flags=allow-oom
-- KEYS: waiting. ARGV: `<project>:<module>`, how long it is kept in ms. One expected again meanwhile stays.
local now = redis.call('TIME')
local since = redis.call('ZSCORE', KEYS[1], ARGV[1])
if since and tonumber(since) <= now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[2] then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
""")
