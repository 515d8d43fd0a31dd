-- Announce which users lost a permission.
local function announce_end(permission, user_ids, device_places, entity_places)
  local action, kind, subject = string.match(permission, '^(%a+):([%a-]+):(.*)$')
  local body = '{"users":[' .. table.concat(user_ids, ',') .. ']'
  local about = {}
  if action == 'read' and kind == 'home-events' then
    about.home = subject
  elseif action == 'read' and kind == 'device' then
    about.device = subject
    about.home = string.match(redis.call('HGET', device_places, subject) or '', '^%d+')
  elseif action == 'read' and kind == 'entity-events' then
    about.home = string.match(redis.call('HGET', entity_places, subject) or '', '^%d+')
    body = body .. ',"entity":' .. cjson.encode(subject)
  end
  about.body = body .. '}'
  return announce('permission_ended', about)
end
