-- Correct counters of what is stored: all, or none if one of them has changed. ARGV: name, value as it was read and
-- corrected value of each.
local usage = KEYS[3]
for i = 1, #ARGV, 3 do
  if (redis.call('HGET', usage, ARGV[i]) or '0') ~= ARGV[i + 1] then return {'moved'} end
end
for i = 1, #ARGV, 3 do
  if ARGV[i + 2] == '0' then
    redis.call('HDEL', usage, ARGV[i])
  else
    redis.call('HSET', usage, ARGV[i], ARGV[i + 2])
  end
end
return unannounced('usage_corrected')
