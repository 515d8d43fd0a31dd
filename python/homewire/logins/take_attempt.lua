-- Lease a place in each limit of an attempt, or in none if one of them is reached. KEYS: counter and leases of each
-- limit. ARGV from 3 on: maximum, first delay and longest delay (ms) of each limit. Answers the limit that was
-- reached, by its place, and the ms to wait.
--
-- Without a delay, a limit stays reached until its counter expires. With one, attempts beyond the limit are allowed
-- one at a time, each after a delay that is twice the one before.
local attempt_id, lease_ms = ARGV[1], ARGV[2]
--- @include "store/clock"
for i = 0, (#ARGV - 2) / 3 - 1 do
  local counter, leases = KEYS[2 * i + 3], KEYS[2 * i + 4]
  local max, delay, max_delay = tonumber(ARGV[3 * i + 3]), tonumber(ARGV[3 * i + 4]), tonumber(ARGV[3 * i + 5])
  local counted = redis.call('HMGET', counter, 'n', 'last')
  local n, wait = tonumber(counted[1] or '0'), 0
  local open = redis.call('ZCOUNT', leases, '(' .. now, '+inf')
  if n < max then
    if n + open >= max then wait = BUSY_MS end
  elseif delay == 0 or n >= IN_A_ROW then
    -- PTTL is -2 for a counter that expires at this moment.
    wait = math.max(redis.call('PTTL', counter), 1)
  else
    wait = counted[2] + math.min(delay * 2 ^ (n - max), max_delay) - now
    if wait <= 0 and open > 0 then wait = BUSY_MS end
  end
  if wait > 0 then return {'limit', tostring(i), string.format('%d', math.ceil(wait))} end
end
for i = 4, #KEYS, 2 do
  redis.call('ZADD', KEYS[i], now + lease_ms, attempt_id)
  redis.call('PEXPIRE', KEYS[i], lease_ms)
end
return unannounced('attempt_leased')
