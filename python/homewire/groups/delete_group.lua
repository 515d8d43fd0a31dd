-- Delete a group. From here on it gets no permissions and no members. Its permissions are revoked one by one.
local group, groups, deleted_groups = unpack(KEYS, 3, 5)
local id = ARGV[1]
if redis.call('UNLINK', group) == 0 then return {'unknown', 'group'} end
redis.call('ZREM', groups, id)
release('0', COST.group, 1)
tombstone(deleted_groups, id)
return unannounced('group_deleted')
