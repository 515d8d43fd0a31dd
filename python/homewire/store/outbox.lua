-- For changes that write to the project's outbox.
if redis.call('XLEN', outbox) >= OUTBOX_LIMIT then return {'behind'} end

-- Whether permissions, and not memberships, decide what connections of this project receive.
local function by_permission() return redis.call('HGET', project, 'access_control') == 'permission' end

-- Whether connections receive nothing of a home until it is activated.
local function is_deactivated(home) return redis.call('HGET', home, 'deactivated') == '1' end

-- The ids of a user's homes for a record. `touched`: elements that the script touched before.
local function listed(homes, touched)
  if not homes then return '' end
  if by_permission() then return '*' end
  if redis.call('ZCARD', homes) + touched > LIMIT then return '*' end
  return table.concat(redis.call('ZRANGE', homes, 0, -1), ',')
end

-- Tags of the user's keys that ended lately. The records of these ends have no copy in the shard of a home that
-- the user enters later.
local function ended(ended_keys)
  return ended_keys and table.concat(redis.call('ZRANGE', ended_keys, 0, MAX_ENDED_KEYS - 1)) or ''
end

-- Publish an event that belongs to the change. The subscribers of the home receive it once.
local function publish_event(home, envelope)
  redis.call('XADD', outbox, '*', 't', 0, 'h', home, 'e', envelope)
end

-- Queue a message before the change is answered. Without a channel there is no message.
local function queue_message(channel, sealed)
  if channel ~= '' then redis.call('XADD', outbox, '*', 't', 0, 'q', channel, 'm', sealed) end
end

-- The last statement of a change that all nodes have to learn of: write its control record. `about` names the
-- user, home, device, key hash or project key. `about.listed` saves a second call of `listed` for one user.
local function announce(record_type, about)
  redis.call('XADD', outbox, '*', 't', TYPES[record_type], 'u', about.user or 0, 'h', about.home or 0,
    'd', about.device or 0, 'k', about.key_hash or '', 'p', about.project_key or 0,
    'b', about.body or ended(about.ended_keys), 's', about.listed or listed(about.homes, about.touched or 0))
  return {'ok'}
end
