-- Copy entries of an outbox to where they are read, once each, whichever node copies them and however often.
-- Entries are known by their names, not by their order: an outbox that lost its end in a crash of Redis may
-- begin again with an earlier position.
local destination, copied_key = KEYS[1], KEYS[2]
local copied_ttl_ms = ARGV[1]
-- ARGV from `first` on: position and content of each entry, in the order of the outbox. `append` gets the
-- content of each entry that was not copied yet. Answers their number.
local function copy(first, append)
  local known, new, copied = redis.call('GET', copied_key) or ',', ',', 0
  for i = first, #ARGV, 2 do
    if not string.find(known, ',' .. ARGV[i] .. ',', 1, true) then
      append(ARGV[i + 1])
      new, copied = new .. ARGV[i] .. ',', copied + 1
    end
  end
  if copied > 0 then
    redis.call('SET', copied_key, new .. string.sub(known, 2, 8192), 'PX', copied_ttl_ms)
  end
  return copied
end
