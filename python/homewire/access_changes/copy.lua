-- Append envelopes to the stream of a shard. ARGV from 2 on: outbox position and envelope of each.
--- @include "store/copying"
return copy(2, function(envelope) redis.call('XADD', destination, '*', 'e', envelope) end)
