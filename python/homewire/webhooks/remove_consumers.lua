-- Remove consumers of a shard's stream without pending entries that read nothing for `idle_ms`: a live node reads
-- every second. No node can read between the check and the removal.
local stream = KEYS[1]
local group, idle_ms = unpack(ARGV, 1, 2)
local removed = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if removed < 100 and consumer.pending == 0 and consumer.idle > tonumber(idle_ms) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer.name)
    removed = removed + 1
  end
end
return removed
