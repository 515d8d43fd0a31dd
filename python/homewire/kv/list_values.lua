-- Answers the number of keys from `first` to `last`, then key and value of each from `skip` on, at most `count`.
-- Ends behind the value that reaches `max_bytes`. `below` is the range end of all keys before `first`: ranks,
-- instead of LIMIT, which would walk over what it skips.
local values, value_keys = KEYS[1], KEYS[2]
local below, first, last, skip, count, max_bytes = unpack(ARGV, 1, 6)
local total = redis.call('ZLEXCOUNT', value_keys, first, last)
count = math.min(tonumber(count), total - tonumber(skip))
local answer = {total}
if count <= 0 then return answer end
local rank = redis.call('ZLEXCOUNT', value_keys, '-', below) + tonumber(skip)
local keys = redis.call('ZRANGE', value_keys, rank, rank + count - 1)
max_bytes = tonumber(max_bytes)
if tonumber(redis.call('HGET', values, '_bytes') or max_bytes) < max_bytes then
  local found = redis.call('HMGET', values, unpack(keys))
  for i, key in ipairs(keys) do
    answer[2 * i], answer[2 * i + 1] = key, found[i]
  end
  return answer
end
local bytes = 0
for i, key in ipairs(keys) do
  if bytes >= max_bytes then break end
  local value = redis.call('HGET', values, key)
  answer[2 * i], answer[2 * i + 1] = key, value
  bytes = bytes + #value
end
return answer
