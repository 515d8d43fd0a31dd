-- Remove delivered commands from the queue of a device. ARGV: their sequence numbers.
local commands, ends = unpack(KEYS, 3, 4)
--- @include "events/removing_command"
local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')[2]
local was_charged = release_early(commands_charge(commands, ends))
for _, sequence in ipairs(ARGV) do remove_command(commands, ends, sequence) end
if redis.call('ZCARD', ends) == 0 then
  redis.call('UNLINK', commands, ends)
elseif was_charged then
  book_until(last, commands_charge(commands, ends))
end
return unannounced('queued_commands_delivered')
