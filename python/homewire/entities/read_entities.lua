-- Place and record of each entity in ARGV from 2 on. Both are empty for an unknown id, the record for an entity
-- of a deleted home. Ends behind the record that reaches `max_bytes`.
local entities, places, deleted_homes = KEYS[1], KEYS[2], KEYS[3]
local max_bytes = tonumber(ARGV[1])
local bytes, answer = 0, {}
for i = 2, #ARGV do
  if bytes >= max_bytes then break end
  local place, record = redis.call('HGET', places, ARGV[i]) or '', ''
  if place ~= '' and not redis.call('ZSCORE', deleted_homes, string.match(place, '^%d+')) then
    record = redis.call('HGET', entities, ARGV[i]) or ''
  end
  answer[2 * i - 3], answer[2 * i - 2] = place, record
  bytes = bytes + #record
end
return answer
