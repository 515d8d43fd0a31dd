-- Replace the key of a device or project key. The sixth key, of a device only: its sessions. They end before, because
-- the device logged in with the old key.
local record, old_key, new_key = unpack(KEYS, 3, 5)
local old_hash, new_hash, device_id, project_key_id = unpack(ARGV, 1, 4)
if redis.call('HGET', record, 'key') ~= old_hash then return {'moved'} end
for i = 6, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return {'in_session'} end
end
redis.call('RENAME', old_key, new_key)
redis.call('HSET', record, 'key', new_hash)
return announce('key_ended', {key_hash = old_hash, device = device_id, project_key = project_key_id})
