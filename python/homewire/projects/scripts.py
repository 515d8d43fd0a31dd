"""Scripts of projects, their apps and keys. See `script.py` for what they answer."""

from __future__ import annotations

from typing import Final

from homewire.access_changes.records import RecordType
from homewire.store.script import Script, changing, reading, removing

LOOK_UP_KEY: Final = reading("""
-- KEYS: project, key
if redis.call('HGET', KEYS[1], 'state') ~= 'live' then return false end
return redis.call('HMGET', KEYS[2], 'kind', 'id', 'name', 'permissions', 'expires', 'session', 'ends')
""")

UNLIST_PROJECT: Final = Script("""#!lua
-- KEYS: live projects, deleted projects, unfinished. ARGV: id, when to look, in ms from now
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[2], ARGV[1], ARGV[1])
  redis.call('ZADD', KEYS[3], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2], ARGV[1])
end
return redis.call('ZSCORE', KEYS[2], ARGV[1])
""")

BURY_PROJECT: Final = removing(
    """
-- From here on every key of the project is dead and every change refused.
redis.call('HSET', project, 'state', 'deleted')
return announce('project_deleted', {})
""",
    announces={RecordType.PROJECT_DELETED},
)

DISABLE_PROJECT: Final = removing(
    """
-- From here on every key of the project is dead; its records can be changed.
if state == 'disabled' then return {'ok'} end
redis.call('HSET', project, 'state', 'disabled')
return announce('project_disabled', {})
""",
    announces={RecordType.PROJECT_DISABLED},
)

ENABLE_PROJECT: Final = removing(
    """
if state == 'live' then return {'ok'} end
redis.call('HSET', project, 'state', 'live')
return announce('project_enabled', {})
""",
    announces={RecordType.PROJECT_ENABLED},
)

CONFIGURE_PROJECT: Final = changing(
    """
-- ARGV: settings by name and value
redis.call('HSET', project, unpack(ARGV))
-- The record ends nothing. It tells nodes that what they remember of the project is old.
return announce('project_enabled', {})
""",
    announces={RecordType.PROJECT_ENABLED},
)

CREATE_APP: Final = changing(
    """
-- KEYS: …, apps. ARGV: id, created
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return {'taken', 'app'} end
local over = charge('0', COST.app, 1)
if over then return over end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return unannounced('app_created')
""",
    charges=True,
)

DELETE_APP: Final = removing(
    """
-- KEYS: …, apps. ARGV: id
if redis.call('HDEL', KEYS[3], ARGV[1]) == 0 then return {'unknown', 'app'} end
release('0', COST.app, 1)
return unannounced('app_deleted')
""",
    charges=True,
)

CREATE_PROJECT_KEY: Final = changing(
    """
-- KEYS: …, record, index, key. ARGV: id, hash, name, permissions, created
local over = charge('0', COST.project_key, 1)
if over then return over end
redis.call('HSET', KEYS[3], 'name', ARGV[3], 'permissions', ARGV[4], 'created', ARGV[5], 'key', ARGV[2])
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[1])
redis.call('HSET', KEYS[5], 'kind', 'project key', 'id', ARGV[1], 'name', ARGV[3], 'permissions', ARGV[4])
return unannounced('project_key_created')
""",
    charges=True,
)

REVOKE_PROJECT_KEY: Final = removing(
    """
-- KEYS: …, record, index, key. ARGV: id, hash
if redis.call('HGET', KEYS[3], 'key') ~= ARGV[2] then return {'moved'} end
redis.call('UNLINK', KEYS[3], KEYS[5])
redis.call('ZREM', KEYS[4], ARGV[1])
release('0', COST.project_key, 1)
return announce('key_ended', {key_hash = ARGV[2], project_key = ARGV[1]})
""",
    announces={RecordType.KEY_ENDED},
    charges=True,
)

ROTATE_KEY: Final = changing(
    """
-- KEYS: …, record (of a device or project key), old key, new key, [sessions of the device]
-- ARGV: old hash, new hash, device id or 0, project key id or 0
if redis.call('HGET', KEYS[3], 'key') ~= ARGV[1] then return {'moved'} end
-- Who signed in with the old key did so for as long as it is good.
if KEYS[6] and redis.call('EXISTS', KEYS[6]) == 1 then return {'in_session'} end
redis.call('RENAME', KEYS[4], KEYS[5])
redis.call('HSET', KEYS[3], 'key', ARGV[2])
return announce('key_ended', {key_hash = ARGV[1], device = ARGV[3], project_key = ARGV[4]})
""",
    announces={RecordType.KEY_ENDED},
)
