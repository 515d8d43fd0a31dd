-- Create the consumer group on the stream of a shard, behind an entry. Without effect if it exists.
local stream = KEYS[1]
local group, entry = unpack(ARGV, 1, 2)
local created = redis.pcall('XGROUP', 'CREATE', stream, group, entry, 'MKSTREAM')
if type(created) == 'table' and created.err and not string.find(created.err, 'BUSYGROUP') then
  return redis.error_reply(created.err)
end
return 1
