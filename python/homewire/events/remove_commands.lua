-- Remove delivered commands from the queue of a device. ARGV: their sequence numbers.
local commands, ends = unpack(KEYS, 3, 4)
--- @include "events/removing_command"
-- The keys keep their end, also if the command that ends last is delivered.
local until_ms = redis.call('PEXPIRETIME', commands)
local was_charged = release_early(commands_charge(commands, ends))
for _, sequence in ipairs(ARGV) do remove_command(commands, ends, sequence) end
if redis.call('ZCARD', ends) == 0 then
  redis.call('UNLINK', commands, ends)
elseif was_charged then
  book_until(until_ms, commands_charge(commands, ends))
end
return unannounced('queued_commands_delivered')
