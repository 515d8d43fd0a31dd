-- The answer of a change with an outbox: what it answers, and the entries of the outbox, so that the relay need not
-- read them. With more than MAX_ANSWERED of them the relay reads the outbox.
local answer, outbox = change(), KEYS[2]
local entries = redis.call('XRANGE', outbox, '-', '+', 'COUNT', MAX_ANSWERED + 1)
return {answer, #entries <= MAX_ANSWERED and entries}
