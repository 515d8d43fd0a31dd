-- Delete a user with sessions, keys, proofs and registrations. KEYS from 21 on: session and key of each session,
-- then the token of each registration. ARGV from 3 on: the ids of the sessions; the hash of the proof, or nothing;
-- the time if only a user who never logged in may be deleted, else nothing; what the sessions are charged.
local user, users, emails, phones, external_keys, user_sessions, departing_users = unpack(KEYS, 3, 9)
local homes, proofs, proof_token, login_tokens, project_sessions, derived = unpack(KEYS, 10, 15)
local registrations, unverified_users, invited_users, pending_homes, left_homes = unpack(KEYS, 16, 20)
local id, session_count = ARGV[1], ARGV[2]
local sessions = tonumber(session_count)
local last = 2 + sessions
local proof_hash, now = (ARGV[last + 1]), (ARGV[last + 2])
local unique = redis.call('HMGET', user, 'unique_email', 'phone', 'external_key')
if not unique[1] then return {'unknown', 'user'} end
if now ~= '' then
  local login = redis.call('HMGET', user, 'verified', 'last_login')
  if login[1] == '1' or login[2] then
    redis.call('ZREM', unverified_users, id)
    redis.call('ZREM', invited_users, id)
    return {'ok', 'stays'}
  end
  if redis.call('EXISTS', registrations) == 1 then
    -- One of the registrations may still be verified: check again after the same time.
    local function postpone(index)
      if redis.call('ZSCORE', index, id) then redis.call('ZADD', index, now, id) end
    end
    postpone(unverified_users)
    postpone(invited_users)
    return {'ok', 'stays'}
  end
end
if redis.call('ZCARD', user_sessions) ~= sessions then return {'moved'} end
for i = 1, sessions do
  if not redis.call('ZSCORE', user_sessions, ARGV[2 + i]) then return {'moved'} end
end
if (redis.call('HGET', proofs, 'passwordReset') or '') ~= proof_hash then return {'moved'} end
if redis.call('ZCARD', registrations) ~= #KEYS - 20 - 2 * sessions then return {'moved'} end
if unique[1] ~= '' then redis.call('HDEL', emails, unique[1]) end
if unique[2] ~= '' then redis.call('HDEL', phones, unique[2]) end
if unique[3] ~= '' then redis.call('HDEL', external_keys, unique[3]) end
redis.call('UNLINK', user, user_sessions, proofs, proof_token, login_tokens, derived, registrations,
  pending_homes, left_homes)
for i = 21, #KEYS do redis.call('UNLINK', KEYS[i]) end
for i = 3, 2 + sessions do redis.call('ZREM', project_sessions, ARGV[i]) end
redis.call('ZREM', users, id)
redis.call('ZREM', unverified_users, id)
redis.call('ZREM', invited_users, id)
release_together('u' .. id, 5 + sessions)
release('0', COST.user, 1)
tombstone(departing_users, id)
return announce('user_deleted', {user = id, homes = homes, touched = 5 * sessions})
