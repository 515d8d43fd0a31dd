-- Open a session of a user. ARGV from 12 on: field and value of the record, the app first. With `proof_hash`, only if
-- that is the hash of the user's password; with `ancestors`, only while the parent's session is live.
local holder, sessions, session, key, project_sessions, derived, parent, ended_sessions = unpack(KEYS, 3, 10)
local holder_id, session_id, key_hash, started, expires, record_expires, limit = unpack(ARGV, 1, 7)
local proof_hash, ancestors, max_derived, max_all_derived, app_field, app_id = unpack(ARGV, 8, 13)
local stored = redis.call('HMGET', holder, 'created', 'invited', 'password')
if not stored[1] or stored[2] == '1' then return {'unknown', 'user'} end
if proof_hash ~= '' and stored[3] ~= proof_hash then return {'moved'} end
if ancestors ~= '' then
  local found = redis.call('HMGET', parent, 'closed', 'expires', 'user')
  if found[1] ~= '0' or tonumber(found[2]) <= tonumber(started) or found[3] ~= holder_id then
    return {'unknown', 'session'}
  end
end
local kind, name, owner = 'user', app_id, 'u' .. holder_id
--- @include "sessions/store_session"
