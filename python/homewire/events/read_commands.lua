-- Answers the last sequence number of a device, then number and envelope of each queued command.
local presence, commands, ends = KEYS[1], KEYS[2], KEYS[3]
local now = ARGV[1]
local queued = redis.call('ZRANGEBYSCORE', ends, '(' .. now, '+inf', 'LIMIT', 0, 500)
local answer = {redis.call('HGET', presence, 'tickets') or '0'}
for i, sequence in ipairs(queued) do
  answer[2 * i], answer[2 * i + 1] = sequence, redis.call('HGET', commands, sequence)
end
return answer
