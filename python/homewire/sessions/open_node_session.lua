-- Open a session of a device. Keys and arguments are those of open_session. `proof_hash` is the hash of the device's
-- own key. Such sessions are never derived.
local holder, sessions, session, key, project_sessions, derived, parent, ended_sessions = unpack(KEYS, 3, 10)
local holder_id, session_id, key_hash, started, expires, record_expires, limit = unpack(ARGV, 1, 7)
local proof_hash, ancestors, max_derived, max_all_derived, app_field, app_id = unpack(ARGV, 8, 13)
local device = redis.call('HMGET', holder, 'class', 'key')
if not device[1] then return {'unknown', 'device'} end
if proof_hash ~= '' and device[2] ~= proof_hash then return {'moved'} end
local kind, name, owner = 'device', device[1], '0'
--- @include "sessions/store_session"
